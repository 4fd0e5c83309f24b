"""Scores of several checkpoints side by side."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from entrypoint.evaluation.request import Evaluation
from entrypoint.quantization import size_bytes

MEGABYTE = 1_000_000


def table(evaluations: Sequence[Evaluation]) -> Table:
    """One row for each score, one column for each checkpoint, the first being the base."""
    first = evaluations[0]
    rows = max(first.rows.values())
    result = Table(title=f"{rows} held-out rows, greedy answers", title_justify="left")
    result.add_column("score")
    for evaluation in evaluations:
        result.add_column(evaluation.label, justify="right")
    for score in first.scores:
        result.add_row(score, *(f"{evaluation.scores[score]:.1%}" for evaluation in evaluations))
    sizes = (size_bytes(evaluation.checkpoint) / MEGABYTE for evaluation in evaluations)
    result.add_row("weights on disk", *(f"{size:,.0f} MB" for size in sizes))
    return result


def show(evaluations: Sequence[Evaluation], console: Console) -> None:
    console.print()
    console.print(table(evaluations))
