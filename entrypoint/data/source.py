"""From what --data names to checked files of rows."""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from entrypoint.data.rows import to_messages
from entrypoint.errors import DataError
from entrypoint.settings import EMBEDDED

EMBEDDED_FOLDER = Path(str(resources.files("entrypoint.data"))) / "embedded" / "sft"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFile:
    """One checked JSON Lines file."""

    path: Path
    rows: int
    sha256: str
    longest: int
    """Characters of text in the longest row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """What a run trains on and, when there is one, its held-out part."""

    reference: str
    train: RowFile
    evaluation: RowFile | None


def load(reference: str) -> Dataset:
    """Find and check the rows that `reference` names.

    Raises:
        DataError: nothing is there, or a line is not a row; names file and line.
    """
    folder_or_file = EMBEDDED_FOLDER if reference == EMBEDDED else Path(reference).expanduser()
    if folder_or_file.is_dir():
        train, held_out = folder_or_file / "train.jsonl", folder_or_file / "eval.jsonl"
        if not train.is_file():
            raise DataError(
                "the data folder has no train.jsonl",
                where=folder_or_file,
                hint="name the training rows train.jsonl, and held-out rows eval.jsonl",
            )
    elif folder_or_file.is_file():
        train, held_out = folder_or_file, None
    else:
        raise DataError(
            f"there is no data at {reference}",
            where="--data or TRAIN_DATA",
            hint="give a .jsonl file, a folder with train.jsonl, or `embedded`",
        )
    return Dataset(
        reference=reference,
        train=check(train),
        evaluation=check(held_out) if held_out and held_out.is_file() else None,
    )


def check(path: Path) -> RowFile:
    """Read every line of a JSON Lines file as a training row.

    Raises:
        DataError: with the number of the first line that is not one.
    """
    digest = hashlib.sha256()
    rows = longest = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                digest.update(line)
                if not line.strip():
                    continue
                longest = max(longest, _check_line(line, path, number))
                rows += 1
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    if not rows:
        raise DataError("the file has no rows", where=path, hint="one JSON object on each line")
    return RowFile(path=path.resolve(), rows=rows, sha256=digest.hexdigest(), longest=longest)


def _check_line(line: bytes, path: Path, number: int) -> int:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text: {error.reason}", where=where) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"not a JSON object: {error.msg} at column {error.colno}",
            where=where,
            hint="every line must be one whole JSON object (JSON Lines)",
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f"a row must be a JSON object, not {type(row).__name__}",
            where=where,
            hint="a file that is one JSON array has to be written as JSON Lines",
        )
    try:
        messages = to_messages(row)
    except ValueError as error:
        raise DataError(str(error), where=where) from error
    return sum(len(message.get("content", "")) for message in messages)
