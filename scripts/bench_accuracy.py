"""What quantizing costs on the built-in task: python -m scripts.bench_accuracy [FOLDER]

The built-in model is tuned as `make demo` does. From there on it is trained once more, to be
rounded (QAT), with what it was before as its teacher. Each copy answers the 200 held-out rows, as
`train eval` asks for it. Exit code 1 when a copy loses more than it may against the model that was
tuned plainly. What is in FOLDER already (outputs/bench-accuracy by default) is not made again.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("outputs/bench-accuracy")
PLAIN = "lora"
"""How `make demo` tunes."""
AWARE = "qat"
TO_BE_ROUNDED = ("--method", AWARE, "--lr", "5e-5", "--dtype", "fp32")
"""Small steps, as the model is tuned already, and smaller than bf16 can tell weights apart."""

HEADER = "| model | rows | exact match | loss | points lost | may lose |\n" + "|---" * 6 + "|"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One copy."""

    trained: str
    """`--method` of training."""
    method: str
    """`--method` of `train quantize`."""
    points: float
    """Of exact match, from 0 to 100, that it may lose."""


CASES = (
    Case(trained=PLAIN, method="int8-weight-only", points=1),
    Case(trained=PLAIN, method="int8-dynamic", points=1),
    Case(trained=PLAIN, method="int4-weight-only", points=5),
    Case(trained=PLAIN, method="8da4w", points=5),
    Case(trained=PLAIN, method="nf4", points=5),
    Case(trained=AWARE, method="8da4w", points=2),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """How a model did on the held-out rows."""

    exact: int
    rows: int
    loss: float

    @property
    def percent(self) -> float:
        """Of the rows that were answered exactly."""
        return 100 * self.exact / self.rows


def lost(tuned: Scored, copy: Scored) -> float:
    """Points of exact match."""
    return tuned.percent - copy.percent


def read(path: Path) -> Scored:
    """The scores in a file of `train eval`."""
    result = json.loads(path.read_text("utf-8"))
    ((task, rows),) = result["rows"].items()
    scores = result["scores"]
    return Scored(
        exact=round(scores[f"{task}/exact_match"] * rows), rows=rows, loss=scores[f"{task}/loss"]
    )


def line(name: str, tuned: Scored, copy: Scored, bound: float | None) -> str:
    """A line of the table."""
    cells = [name, f"{copy.exact} of {copy.rows}", f"{copy.percent:.1f} %", f"{copy.loss:.4f}"]
    cells += ["-", "-"] if bound is None else [f"{lost(tuned, copy):.1f}", f"{bound:g}"]
    return f"| {' | '.join(cells)} |"


def train(*arguments: str | Path) -> None:
    """Call our own command; what it says goes to standard error."""
    argv = (sys.executable, "-m", "entrypoint", *map(str, arguments))
    subprocess.run(argv, check=True, stdout=sys.stderr)


def score(run: Path, label: str, folder: Path) -> Scored:
    """Have a model of a run answer the held-out rows, unless it has."""
    result = run / "eval" / f"{label}.json"
    if not result.exists():
        train("eval", "--model", folder, "--label", label, "--output", result)
    return read(result)


def tuned_model(root: Path, method: str) -> Path:
    """The run, trained unless it is there."""
    run = root / method
    if (run / "final").exists():
        return run
    if method == AWARE:
        tuned = tuned_model(root, PLAIN) / "final"
        train("kd", "--model", tuned, "--teacher", tuned, *TO_BE_ROUNDED, "--output", run)
    else:
        train("sft", "--method", method, "--output", run)
    return run


def quantized_copy(run: Path, method: str) -> Path:
    """A copy of a run's model, made unless it is there."""
    copy = run / "quantized" / method
    if not copy.exists():
        train("quantize", "--model", run, "--method", method)
    return copy


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    plain = tuned_model(root, PLAIN)
    tuned = score(plain, "tuned", plain / "final")
    print(HEADER)
    print(line(f"tuned ({PLAIN})", tuned, tuned, None), flush=True)
    missed = False
    for case in CASES:
        run = tuned_model(root, case.trained)
        copy = score(run, case.method, quantized_copy(run, case.method))
        name = case.method if case.trained == PLAIN else f"{case.method} after {case.trained}"
        print(line(name, tuned, copy, case.points), flush=True)
        missed |= lost(tuned, copy) > case.points
    sys.exit(missed)


if __name__ == "__main__":
    main()
