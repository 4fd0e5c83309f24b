"""Weight files: which there are, and whether they are whole and are what the card expects."""

import json
from collections.abc import Mapping
from pathlib import Path

from entrypoint.errors import ModelError
from entrypoint.models.tensors import Shape

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
COMPUTED = ".rotary_emb.inv_freq"
"""End of the name of what early Llama files store and everybody computes; torchtune skips it."""


def find_shards(folder: Path) -> tuple[str, ...]:
    """Names of the safetensors files that make up the model, by the index when there is one.

    Raises:
        ModelError: there are none, or the index names one that is not there.
    """
    names = named_shards(folder)
    if names == (SINGLE_FILE,) and not (folder / SINGLE_FILE).is_file():
        raise ModelError(
            "the model folder has no safetensors weights",
            where=folder,
            hint=f"expected {SINGLE_FILE}, or shards with {INDEX_FILE}",
        )
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(f"the index names {name}, which is missing", where=folder)
    return names


def named_shards(folder: Path) -> tuple[str, ...]:
    """Names of the weight files, which may not be there yet: by the index, or the single file.

    Raises:
        ModelError: the index cannot be read.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            return tuple(sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values())))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(
                f"the index of the weight files cannot be read: {error}", where=index
            ) from error
    return (SINGLE_FILE,)


def verify(folder: Path, shards: tuple[str, ...], expected: Mapping[str, Shape]) -> None:
    """Hold the shards' headers against the card; reads no weights.

    Raises:
        ModelError: a shard is cut short or corrupt, or a tensor is missing, unknown or misshapen.
    """
    compare(check_whole(folder, shards), expected, where=folder)


def compare(found: Mapping[str, Shape], expected: Mapping[str, Shape], *, where: object) -> None:
    """Hold the tensors that there are against those that there should be.

    Raises:
        ModelError: one is missing, unknown or misshapen.
    """
    found = {name: shape for name, shape in found.items() if not name.endswith(COMPUTED)}
    for problem, names in (
        ("is missing", expected.keys() - found.keys()),
        ("is unknown to this architecture", found.keys() - expected.keys()),
        (
            "has another shape than config.json says",
            {name for name in expected.keys() & found.keys() if expected[name] != found[name]},
        ),
    ):
        if names:
            first = min(names)
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ModelError(
                f"the tensor {first} {problem}{others}",
                where=where,
                hint="check that config.json and the weight files are of the same model",
            )


def check_whole(folder: Path, shards: tuple[str, ...]) -> dict[str, Shape]:
    """Open every shard and return name -> shape of its tensors, from the headers.

    Raises:
        ModelError: a shard is cut short or corrupt; names it.
    """
    found: dict[str, Shape] = {}
    for name in shards:
        found |= _shapes(folder / name)
    return found


def _shapes(path: Path) -> dict[str, Shape]:
    from safetensors import SafetensorError, safe_open

    try:
        # the numpy framework reads headers without importing torch
        with safe_open(path, framework="np") as shard:
            return {name: tuple(shard.get_slice(name).get_shape()) for name in shard.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"the weight file is corrupt or cut short: {error}",
            where=path,
            hint="fetch this file again",
        ) from error
