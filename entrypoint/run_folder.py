"""The layout of a run on disk."""

from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path

OUTPUTS = Path("outputs")
METRICS = "metrics.jsonl"
"""In the folder of logs: one JSON object for each optimizer step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """Where everything of a run lies."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def command(self) -> Path:
        return self.root / "command.txt"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def metrics(self) -> Path:
        return self.logs / METRICS

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def reference(self) -> Path:
        """What the reference of DPO says, where it is computed once."""
        return self.root / "reference"

    @property
    def final(self) -> Path:
        return self.root / "final"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def results(self) -> tuple[Path, ...]:
        """Folders that are made after training."""
        return (self.final, self.adapter, self.root / "quantized", self.evaluations)

    def quantized(self, method: str) -> Path:
        return self.root / "quantized" / method

    @property
    def evaluations(self) -> Path:
        return self.root / "eval"

    def evaluation(self, label: str) -> Path:
        return self.evaluations / f"{label}.json"

    @property
    def comparison(self) -> Path:
        return self.root / "compare.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


def default_output(kind: str, name: str) -> Path:
    """A folder under outputs/ that says what and when, and is not there yet."""
    first = OUTPUTS / f"{kind}-{Path(name).name}-{datetime.now():%Y%m%d-%H%M%S}"
    more = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return next(path for path in chain((first,), more) if not path.exists())
