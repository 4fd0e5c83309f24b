"""What `train plan` answers, for people and for programs."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from entrypoint.estimate import Estimate, as_dict
from entrypoint.fitting import Choice
from entrypoint.inputs import Inputs
from entrypoint.plan import Plan
from entrypoint.sizing import PARTS
from entrypoint.units import duration, gib, money

VERSION = 1
"""Of the JSON document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a run takes on one kind of machine."""

    plan: Plan
    estimate: Estimate
    fitting: tuple[Choice, ...]
    """Cheapest first."""


def facts(found: Inputs, first: Answer) -> dict[str, Any]:
    """What is alike on all machines, for JSON."""
    settings, rows = first.plan.settings, first.estimate.asked.lengths
    return {
        "version": VERSION,
        "objective": settings.objective,
        "preset": settings.preset,
        "model": {"reference": found.model.reference, "parameters": found.model.parameters},
        "teacher": found.teacher and found.teacher.reference,
        "data": {
            "reference": found.dataset.reference,
            "rows": found.dataset.train.rows,
            "tokens_counted": rows.counted,
            "longest_row_tokens": rows.longest,
        },
    }


def described(found: Answer) -> dict[str, Any]:
    """What is known of one machine, for JSON."""
    return {
        **as_dict(found.estimate),
        "fitting": [
            {"options": list(choice.options), **as_dict(choice.found)} for choice in found.fitting
        ],
    }


def show(found: Inputs, answers: list[Answer], console: Console) -> None:
    """The same for people."""
    settings = answers[0].plan.settings
    rows = answers[0].estimate.asked.lengths
    said = "counted" if rows.counted else "estimated from characters"
    lines = {
        "model": f"{found.model.reference}: {found.model.parameters / 1e6:,.0f} M parameters",
        **({"teacher": found.teacher.reference} if found.teacher else {}),
        "data": f"{found.dataset.reference}: {found.dataset.train.rows:,} rows, the longest about "
        f"{rows.longest:,} tokens ({said})",
        "method": f"{settings.method}, {settings.batch_size} rows a step and process, "
        f"{answers[0].plan.epochs} epoch{'s' if answers[0].plan.epochs > 1 else ''}"
        + (f", preset {settings.preset}" if settings.preset else ""),
    }
    for name, value in lines.items():
        console.print(f"{name:<7} {value}", markup=False)
    for each in answers:
        show_one(each, console)


def show_one(found: Answer, console: Console) -> None:
    """What is known of one machine."""
    made = found.estimate
    world = found.plan.world
    kind = f"{world.device}, {world.dtype}"
    if world.ranks > 1:
        kind += f", {world.ranks} processes"
    if world.nodes > 1:
        kind += f" on {world.nodes} nodes"
    console.print(f"\n{made.machine.name} ({kind})", markup=False)
    for name, said in PARTS.items():
        if size := getattr(made.footprint, name):
            console.print(f"  {said:<28} {gib(size):>10}", markup=False)
    verdict = {True: "fits", False: "does not fit", None: "memory not known"}[made.fits]
    there = f" of {gib(made.there)}" if made.there is not None else ""
    each = " in each process" if world.ranks > 1 else ""
    console.print(
        f"  {'together':<28} {gib(made.footprint.total):>10}{there}{each}: {verdict}", markup=False
    )
    console.print(f"  {made.asked.steps:,} steps, {made.tokens:,} tokens, {costs(made)}")
    if not found.fitting:
        return
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("  what fits, cheapest first", "memory", "time", "cost"):
        table.add_column(column, no_wrap=column != "time")
    for choice in found.fitting:
        made = choice.found
        table.add_row(
            "  " + " ".join(choice.options),
            gib(made.footprint.total),
            duration(made.seconds) if made.seconds is not None else f"{made.work:.2g} FLOP",
            money(made.cost) if made.cost is not None else "",
        )
    console.print(table)


def costs(found: Estimate) -> str:
    """Time and cost in words."""
    if found.seconds is None:
        return f"{found.work:.2g} FLOP; time not known: give --tokens-per-second, or --like a run"
    said = f"about {duration(found.seconds)} at {found.known_by}"
    return said + (f", cost {money(found.cost)}" if found.cost is not None else "")
