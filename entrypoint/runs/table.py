"""Runs and their differences in the terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from entrypoint.comparison.table import shown
from entrypoint.runs.differences import Difference
from entrypoint.runs.pair import Pair

WIDTH = 100
"""Columns where no terminal says how many there are."""
STYLES = {"running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red"}
SHORT_HASH = 12


def wide(console: Console) -> Console:
    """The console, with WIDTH columns where it is no terminal."""
    if not console.is_terminal:
        console.width = WIDTH
    return console


def show_list(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """One line for each run.

    Args:
        rows: of `entrypoint.runs.record.summary`.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("model", overflow="fold")
    table.add_column("steps", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("eval", overflow="fold")
    table.add_column("status", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row["name"]),
            when(row["started"]),
            f"{row['objective']}, {row['method']}",
            Text(Path(row["model"]).name if row["model"].startswith("/") else row["model"]),
            f"{row['steps']:,}",
            "" if row["loss"] is None else f"{row['loss']:.3f}",
            Text(_evaluation(row["evaluation"])),
            Text(row["status"], style=STYLES[row["status"]]),
        )
    wide(console).print(table)
    for row in rows:
        if row["error"]:
            reason = row["error"].splitlines()[0]
            console.print(f"{row['name']}: {reason}", markup=False, soft_wrap=True)


def _evaluation(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    value = shown(found["score"], found["value"])
    return f"{found['label']} {found['score'].rpartition('/')[2]} {value}"


def when(started: str) -> str:
    """A moment for people, in the time of this machine."""
    return f"{datetime.fromisoformat(started).astimezone():%m-%d %H:%M}"


def show_pair(pair: Pair, console: Console) -> None:
    """Differences first, then figures side by side."""
    show_differences(pair.differences, pair.names, console)
    table = _side_by_side("figure", pair.names)
    for name, values in pair.figures.items():
        table.add_row(Text(name), *(_figure(name, value) for value in values))
    wide(console).print(table)
    for line in verdict(pair):
        console.print(line, markup=False, soft_wrap=True)


def show_differences(
    differences: Sequence[Difference], names: tuple[str, str], console: Console
) -> None:
    """What two runs were not made from alike, part by part."""
    if not differences:
        console.print("made from the same settings, model, data and versions", soft_wrap=True)
        return
    table = _side_by_side("differs", names)
    for one in differences:
        values = (_value(one.first), _value(one.second))
        table.add_row(Text(f"{one.part}: {one.what}"), *map(Text, values))
    wide(console).print(table)


def _side_by_side(what: str, names: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(what, overflow="fold")
    for name in names:
        table.add_column(Text(name), overflow="fold")
    return table


def _value(value: Any) -> str:
    """A value of a manifest; of a hash as much as tells two apart."""
    if value in (None, [], ()):
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    is_hash = len(text) in (40, 64) and all(letter in "0123456789abcdef" for letter in text)
    return text[:SHORT_HASH] if is_hash else text


def _figure(name: str, value: float | int | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, int):
        return f"{value:,}"
    return shown(name.split(",")[0], value)


def verdict(pair: Pair) -> list[str]:
    """In words: whether the same came out."""
    lines = []
    if pair.losses:
        if pair.losses.since is None:
            lines.append(f"losses: the same in all {pair.losses.steps} steps")
        else:
            lines.append(
                f"losses: differ from step {pair.losses.since} of {pair.losses.steps} on, "
                f"by {pair.losses.largest:.2g} at most"
            )
    for name, same in pair.weights.items():
        lines.append(f"weights in {name}/: {'the same' if same else 'not the same'}")
    return lines
