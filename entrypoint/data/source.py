"""From what --data names to the files, or the data set of the hub, that rows come from."""

import glob
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from entrypoint import files
from entrypoint.data import readers
from entrypoint.data.batches import Batch, Wanted
from entrypoint.data.readers import COMPRESSED
from entrypoint.errors import DataError
from entrypoint.settings import EMBEDDED

EMBEDDED_FOLDER = Path(str(resources.files("entrypoint.data"))) / "embedded" / "sft"
EMBEDDED_PAIRS = EMBEDDED_FOLDER.with_name("preference")
DATA_SUFFIXES = tuple(readers.SUFFIXES)
STANDARD_INPUT = "-"
DESCRIPTIONS = ("dataset.json", "dataset_info.json", "dataset_infos.json", "state.json")
"""Files beside the rows that say something about them."""
HELD_OUT = ("eval", "validation", "valid", "val", "dev", "test")
"""What files of held-out rows are called; of several such parts the first here is taken."""


class Source(Protocol):
    """Where rows come from: files, or a data set of the hub."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def has_evaluation(self) -> bool:
        """Whether it keeps held-out rows apart."""

    def schema(self) -> pa.Schema:
        """Columns and types of the first rows."""

    def batches(self, part: str, wanted: Wanted) -> Iterator[Batch]:
        """The rows of "train" or "eval"."""

    def content(self) -> Any:
        """The same for the same rows."""

    def describe(self) -> dict[str, Any]:
        """What dataset.json says of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Rows in local files."""

    reference: str
    train: tuple[Path, ...]
    evaluation: tuple[Path, ...] = ()
    """Held-out rows, where they are kept apart."""
    left_out: tuple[Path, ...] = ()
    """Files of the same folder that are neither."""

    @property
    def name(self) -> str:
        return self.called(self.train[0]) if len(self.train) == 1 else self.reference

    def called(self, path: Path) -> str:
        """A file's name in messages."""
        return path.name if self.reference == STANDARD_INPUT else str(path)

    @property
    def has_evaluation(self) -> bool:
        return bool(self.evaluation)

    def schema(self) -> pa.Schema:
        return readers.schema(self.train[0], self.called(self.train[0]))

    def batches(self, part: str, wanted: Wanted) -> Iterator[Batch]:
        for path in self.train if part == "train" else self.evaluation:
            yield from readers.read(path, wanted, self.called(path))

    def content(self) -> list[list[str]]:
        return [[sha256_of(path) for path in paths] for paths in (self.train, self.evaluation)]

    def describe(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            "revision": None,
            "files": [
                {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
                for path in (*self.train, *self.evaluation)
            ],
        }


def locate(reference: str, scratch: Path, embedded: Path = EMBEDDED_FOLDER) -> Files | None:
    """The local files that `reference` names; None when nothing on this machine has that name.

    Args:
        scratch: a folder for what comes from standard input (`-`).
        embedded: which of the built-in data sets `embedded` names.

    Raises:
        DataError: a folder or pattern without data.
    """
    if reference == STANDARD_INPUT:
        path = scratch / "standard input"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return Files(reference=reference, train=(path,))
    path = embedded if reference == EMBEDDED else Path(reference).expanduser()
    if path.is_file():
        return Files(reference=reference, train=(path,))
    if path.is_dir():
        return _folder(reference, path)
    if any(character in reference for character in "*?["):
        # a pattern may be absolute, which Path.glob does not take
        found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        files = tuple(Path(name) for name in found if Path(name).is_file())
        # a README beside the rows is none of them
        if files := tuple(file for file in files if is_data(file)) or files:
            return Files(reference=reference, train=files)
        if path.is_absolute() or "/" not in reference or reference.startswith((".", "~")):
            raise DataError(f"no file matches {reference}", where="--data or TRAIN_DATA")
    return None


def _folder(reference: str, folder: Path) -> Files:
    files = [path for path in sorted(folder.rglob("*")) if is_data(path)]
    parts: dict[str, list[Path]] = {}
    for path in files:
        parts.setdefault(_part_of(path), []).append(path)
    train, others = parts.pop("train", []), parts.pop("", [])
    if train and not others:
        held_out = parts.pop(next((word for word in HELD_OUT if word in parts), ""), [])
        unused = [path for paths in parts.values() for path in paths]
        return Files(
            reference=reference,
            train=tuple(train),
            evaluation=tuple(held_out),
            left_out=tuple(unused),
        )
    if train or parts:
        odd = (others or next(iter(parts.values())))[0]
        raise DataError(
            f"the folder is not clear about its parts: {odd.name} is no training file by its name",
            where=folder,
            hint="name files train.* and eval.*, or none of them so, or give one file",
        )
    if not files:
        raise DataError(
            "the data folder has no files of rows",
            where=folder,
            hint=f"files end in {', '.join(DATA_SUFFIXES)}, or so with {', '.join(COMPRESSED)}",
        )
    return Files(reference=reference, train=tuple(files))


def _part_of(path: Path) -> str:
    """ "train", one of HELD_OUT, or "" for a file that does not say."""
    stem = path.name.split(".")[0].lower()
    words = ("train", *HELD_OUT)
    return next((word for word in words if stem == word or stem.startswith(f"{word}-")), "")


def is_data(path: Path) -> bool:
    name = path.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    hidden = path.name.startswith((".", "_"))
    return (
        path.is_file() and not hidden and name.endswith(DATA_SUFFIXES) and name not in DESCRIPTIONS
    )


def sha256_of(path: Path) -> str:
    """The hash of a file of rows.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return files.sha256_of(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error


def short_name(reference: str) -> str:
    """What --data names, without its folders, suffixes and configuration."""
    if reference == STANDARD_INPUT:
        return "stdin"
    path = Path(reference.split(":")[0])
    # of `.` and `..` what they stand for
    name = path.name.strip(".") or path.expanduser().resolve().name
    return name.split(".")[0] or "rows"
