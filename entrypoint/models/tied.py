"""An output head that is written beside the embedding that it is tied to must be the same."""

from pathlib import Path

from entrypoint.errors import ModelError
from entrypoint.models.finite import header
from entrypoint.models.weights import COPIES

Place = tuple[Path, int, int]
"""File, first byte and number of bytes."""
BLOCK_BYTES = 16 << 20


def check_tied(folder: Path, shards: tuple[str, ...]) -> None:
    """Compare the two, byte by byte, when both are in the files of a model that ties them.

    Raises:
        ModelError: they differ, so config.json is not of these weights.
    """
    places: dict[str, Place] = {}
    for name in shards:
        places |= _places(folder / name)
    for copy, original in COPIES.items():
        if copy in places and not _same(places[copy], places[original]):
            raise ModelError(
                f"config.json ties {copy} to {original}, and the files hold two different matrices",
                where=folder,
                hint="set tie_word_embeddings to false in config.json if the model has a head of "
                "its own",
            )


def _places(path: Path) -> dict[str, Place]:
    with path.open("rb") as file:
        tensors, data = header(file)
    found = {}
    for name in {*COPIES, *COPIES.values()} & tensors.keys():
        begin, end = tensors[name]["data_offsets"]
        found[name] = (path, data + begin, end - begin)
    return found


def _same(one: Place, other: Place) -> bool:
    (path, start, size), (other_path, other_start, other_size) = one, other
    with path.open("rb") as file, other_path.open("rb") as second:
        file.seek(start)
        second.seek(other_start)
        for done in range(0, size, BLOCK_BYTES):
            count = min(BLOCK_BYTES, size - done)
            if file.read(count) != second.read(count):
                return False
    return size == other_size
