"""What an evaluation is asked for and what it answers; imports nothing heavy."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TASK_FOLDER = Path(__file__).parent / "tasks"
EMBEDDED_TASK = "embedded"
BATCH_SIZE = 50
"""Rows generated together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One checkpoint to score."""

    label: str
    """base, tuned, or what the user calls it."""
    checkpoint: Path
    tasks: tuple[str, ...]
    """Names known to lm-eval, to the folder shipped here or to `include`."""
    device: str
    dtype: str
    output: Path
    limit: int | None = None
    """Rows per task; None takes all."""
    batch_size: int = BATCH_SIZE
    include: Path | None = None
    """A folder with task files of the user's own."""

    def to_json(self) -> str:
        values = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(values, default=str)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        values: dict[str, Any] = json.loads(text)
        for name in ("checkpoint", "output", "include"):
            values[name] = Path(values[name]) if values[name] else None
        return cls(**values | {"tasks": tuple(values["tasks"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One checkpoint's scores."""

    label: str
    checkpoint: Path
    scores: Mapping[str, float]
    """`task/metric` -> value, as the harness aggregates it."""
    rows: Mapping[str, int]
    """Task -> number of rows that were scored."""


def read(path: Path) -> Evaluation:
    """The summary of a written evaluation."""
    found = json.loads(path.read_text("utf-8"))
    return Evaluation(
        label=found["label"],
        checkpoint=Path(found["checkpoint"]),
        scores=found["scores"],
        rows=found["rows"],
    )
