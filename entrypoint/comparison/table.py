"""A comparison in the terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from entrypoint.comparison.paired import Comparison, Difference
from entrypoint.evaluation.request import Evaluation
from entrypoint.gate import Verdict

PERCENTAGES = ("exact_match", "acc", "f1", "mc1", "mc2", "preference_accuracy")
"""Metrics (by the beginning of their names) that are shares of one."""
HEADLINES = ("exact_match", "acc", "preference_accuracy", "loss")
"""Metrics that a model is known by, the first that there is."""
COLOURS = {"better": "green", "worse": "red", "unclear": "dim"}


def is_share(score: str) -> bool:
    return score.rsplit("/", 1)[-1].startswith(PERCENTAGES)


def headline(scores: Iterable[str]) -> str | None:
    """The score that says most of a model."""
    names = list(scores)
    for metric in HEADLINES:
        for score in names:
            if score.rpartition("/")[2] == metric:
                return score
    return names[0] if names else None


def shown(score: str, value: float) -> str:
    """A share as a percentage, anything else as a number."""
    return f"{value:.1%}" if is_share(score) else f"{value:.4g}"


def signed(score: str, value: float) -> str:
    """A difference: of shares in percentage points, without their sign."""
    return f"{100 * value:+.1f}" if is_share(score) else f"{value:+.3g}"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def table(evaluations: Sequence[Evaluation]) -> Table:
    """One row for each score, one column for each model, the first being the base."""
    first = evaluations[0]
    counts = ", ".join(f"{task}: {rows} rows" for task, rows in first.rows.items())
    result = Table(title=counts, title_justify="left")
    result.add_column("score")
    for evaluation in evaluations:
        result.add_column(evaluation.label, justify="right")
    for score in first.scores:
        cells = (
            shown(score, found.scores[score]) if score in found.scores else ""
            for found in evaluations
        )
        result.add_row(score, *cells)
    result.add_section()
    result.add_row("weights on disk", *(decimal(found.weights_bytes) for found in evaluations))
    for name, key in (
        ("peak memory", "peak_bytes"),
        ("scored tokens/s", "scored_tokens_per_second"),
        ("generated tokens/s", "generated_tokens_per_second"),
    ):
        found_values = [found.performance.get(key) for found in evaluations]
        if any(found_values):
            write = decimal if key == "peak_bytes" else "{:,.0f}".format
            result.add_row(name, *(write(value) if value else "" for value in found_values))
    return result


def differences(comparison: Comparison) -> list[Table]:
    """For each pair of models, one row for each score."""
    by_pair: dict[tuple[str, str], list[Difference]] = {}
    for one in comparison.differences:
        by_pair.setdefault((one.label, one.against), []).append(one)
    tables = []
    for (label, against), found in by_pair.items():
        result = Table()
        result.add_column("score")
        result.add_column(f"{label} - {against}", justify="right")
        result.add_column("95 % interval", justify="right")
        result.add_column("McNemar's p", justify="right")
        for one in found:
            colour = COLOURS[one.verdict]
            unit = " pt" if is_share(one.score) else ""
            result.add_row(
                one.score,
                f"[{colour}]{signed(one.score, one.difference)}{unit}[/]",
                ""
                if one.low is None or one.high is None
                else f"{signed(one.score, one.low)} to {signed(one.score, one.high)}",
                "" if one.p_value is None else p_value(one.p_value),
            )
        tables.append(result)
    return tables


def show(evaluations: Sequence[Evaluation], console: Console) -> None:
    console.print()
    console.print(table(evaluations))


def show_comparison(comparison: Comparison, verdicts: Sequence[Verdict], console: Console) -> None:
    """Scores, differences, and whether the conditions are met."""
    show(comparison.evaluations, console)
    for one in differences(comparison):
        console.print(one)
    for verdict in verdicts:
        console.print(f"{'met   ' if verdict.holds else 'FAILED'} {verdict}", markup=False)
