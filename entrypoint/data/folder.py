"""A prepared folder: what was asked for, what is in it, and how it is described."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from entrypoint.data.checks import Findings, Policy
from entrypoint.data.shapes import Shape, Task
from entrypoint.data.source import Source, sha256_of
from entrypoint.data.writing import RowFile
from entrypoint.errors import DataError

DATASET_VERSION = 2
TASKS: tuple[Task, ...] = get_args(Task)
TRAIN, EVAL, DESCRIPTION = "train.jsonl", "eval.jsonl", "dataset.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to make of a source."""

    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    eval_fraction: float = 0.0
    max_rows: int | None = None
    shuffle: bool = False
    seed: int = 42
    policies: Mapping[str, Policy] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A data set in its canonical shape."""

    shape: Shape
    train: RowFile
    evaluation: RowFile | None
    rows: int
    """Rows that were read."""
    unread: tuple[str, ...]
    """Columns of the source that are not."""
    findings: Findings


def describe(source: Source, request: Request, prepared: Prepared) -> dict[str, Any]:
    """What is written to dataset.json."""
    held_out = prepared.evaluation
    parts = {"train": prepared.train} | ({"evaluation": held_out} if held_out else {})
    return {
        "version": DATASET_VERSION,
        "source": source.describe(),
        "task": prepared.shape.task,
        "format": prepared.shape.format,
        "columns": dict(prepared.shape.columns),
        "columns_not_read": list(prepared.unread),
        "rows_read": prepared.rows,
        **{
            name: {"file": file.path.name, "rows": file.rows, "sha256": file.sha256,
                   "longest": file.longest}
            for name, file in parts.items()
        },
        "split": {"eval_fraction": request.eval_fraction, "seed": request.seed},
        "shuffled": request.shuffle,
        "max_rows": request.max_rows,
        "checks": {
            name: {"policy": found.policy, "rows": found.count, "examples": found.examples}
            for name, found in prepared.findings.by_check.items()
        },
    }  # fmt: skip


def open_prepared(
    folder: Path, *, verify: bool = False
) -> tuple[dict[str, Any], RowFile, RowFile | None]:
    """The description and the files of a folder that `prepare` wrote.

    Args:
        verify: hash the files.

    Raises:
        DataError: a file is not as it was written, or the description is another's.
    """

    def file(part: str) -> RowFile:
        said = dict(found[part])
        path = folder / said.pop("file")
        if verify and sha256_of(path) != said["sha256"]:
            raise DataError(
                "the file was changed after it was prepared",
                where=path,
                hint=f"prepare it again, or remove {DESCRIPTION} to have it read as any folder",
            )
        return RowFile(path=path, **said)

    try:
        found = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        if found["task"] not in TASKS or "revision" not in found["source"]:
            raise KeyError("task")
        return found, file("train"), file("evaluation") if "evaluation" in found else None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{DESCRIPTION} is not the one that `train prepare` writes",
            where=folder / DESCRIPTION,
            hint="call a file of rows otherwise, and give the file; or prepare the folder again",
        ) from error


def cache_key(source: Source, request: Request) -> str:
    """A name for what `prepare` would write: the same content and options, the same name."""
    asked = {
        "version": DATASET_VERSION,
        "content": source.content(),
        "format": request.format,
        "columns": dict(request.columns),
        "options": [
            request.eval_fraction, request.max_rows, request.shuffle, request.seed,
            sorted(request.policies.items()),
        ],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]
