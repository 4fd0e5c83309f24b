"""Scores of several checkpoints side by side."""

from collections.abc import Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from entrypoint.evaluation.request import Evaluation

PERCENTAGES = ("exact_match", "acc", "f1", "mc1", "mc2")
"""Metrics (by the beginning of their names) that are shares of one."""


def table(evaluations: Sequence[Evaluation]) -> Table:
    """One row for each score, one column for each checkpoint, the first being the base."""
    first = evaluations[0]
    counts = ", ".join(f"{task}: {rows} rows" for task, rows in first.rows.items())
    result = Table(title=counts, title_justify="left")
    result.add_column("score")
    for evaluation in evaluations:
        result.add_column(evaluation.label, justify="right")
    for score in first.scores:
        result.add_row(score, *(shown(score, found.scores[score]) for found in evaluations))
    sizes = (decimal(found.weights_bytes) for found in evaluations)
    result.add_row("weights on disk", *sizes)
    return result


def shown(score: str, value: float) -> str:
    """A share as a percentage, anything else as a number."""
    is_share = score.rsplit("/", 1)[-1].startswith(PERCENTAGES)
    return f"{value:.1%}" if is_share else f"{value:.4g}"


def show(evaluations: Sequence[Evaluation], console: Console) -> None:
    console.print()
    console.print(table(evaluations))
