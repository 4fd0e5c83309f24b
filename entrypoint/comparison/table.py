"""A comparison in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from entrypoint.comparison.paired import Comparison, Difference
from entrypoint.evaluation.request import Evaluation
from entrypoint.gate import Verdict

PERCENTAGES = ("exact_match", "acc", "f1", "mc1", "mc2", "preference_accuracy")
"""Metrics (by the beginning of their names) that are shares of one."""
COLOURS = {"better": "green", "worse": "red", "unclear": "dim"}


def is_share(score: str) -> bool:
    return score.rsplit("/", 1)[-1].startswith(PERCENTAGES)


def shown(score: str, value: float) -> str:
    """A share as a percentage, anything else as a number."""
    return f"{value:.1%}" if is_share(score) else f"{value:.4g}"


def signed(score: str, value: float) -> str:
    """A difference: of shares in percentage points, without their sign."""
    return f"{100 * value:+.1f}" if is_share(score) else f"{value:+.3g}"


def said(found: Difference) -> str:
    """A difference with its interval and the test's p-value."""
    parts = [signed(found.score, found.difference)]
    if found.low is not None and found.high is not None:
        parts.append(f"[{signed(found.score, found.low)}, {signed(found.score, found.high)}]")
    if found.p_value is not None:
        parts.append("p<0.001" if found.p_value < 0.001 else f"p={found.p_value:.3f}")
    return " ".join(parts)


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


def differences(comparison: Comparison) -> Table:
    """One row for each score, one column for each pair of models."""
    pairs = list(dict.fromkeys((one.label, one.against) for one in comparison.differences))
    result = Table(
        title="differences [95 % interval], McNemar's p; shares in points", title_justify="left"
    )
    result.add_column("score")
    for label, against in pairs:
        result.add_column(f"{label} - {against}", justify="right")
    by_score: dict[str, dict[tuple[str, str], Difference]] = {}
    for one in comparison.differences:
        by_score.setdefault(one.score, {})[one.label, one.against] = one
    for score, found in by_score.items():
        cells = (
            f"[{COLOURS[found[pair].verdict]}]{said(found[pair]).replace('[', chr(92) + '[')}[/]"
            if pair in found
            else ""
            for pair in pairs
        )
        result.add_row(score, *cells)
    return result


def show(evaluations: Sequence[Evaluation], console: Console) -> None:
    console.print()
    console.print(table(evaluations))


def show_comparison(comparison: Comparison, verdicts: Sequence[Verdict], console: Console) -> None:
    """Scores, differences, and whether the conditions are met."""
    show(comparison.evaluations, console)
    console.print(differences(comparison))
    for verdict in verdicts:
        console.print(f"{'met   ' if verdict.holds else 'FAILED'} {verdict}", markup=False)
