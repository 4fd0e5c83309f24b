"""Whether a run fits its machine, before anything is downloaded for it."""

import shlex

from entrypoint.data import lengths
from entrypoint.data.lengths import Lengths
from entrypoint.errors import DoesNotFitError
from entrypoint.estimate import Asked, Estimate, estimate, switches_of
from entrypoint.fitting import choices
from entrypoint.machines import Machine
from entrypoint.methods import TRAITS, is_written_out
from entrypoint.models.companions import FAST
from entrypoint.plan import Plan
from entrypoint.units import duration, gib

SHOWN = 3
"""Parts of the memory that a line names."""
PARTS = {
    "weights": "weights",
    "adapters": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "second": "reference or teacher",
    "gather": "gathered layers",
    "fragmentation": "fragmentation",
    "process": "process",
    "files": "reading and writing weights",
}
"""Part of a footprint -> its name for people."""


def asked_by(plan: Plan, recipe: str, rows: Lengths) -> Asked:
    """What an estimate of a plan starts from.

    Args:
        recipe: the rendered YAML.
        rows: of the plan's data set; see `look`.
    """
    return Asked(
        settings=plan.settings,
        model=plan.model,
        teacher=plan.teacher,
        lengths=rows,
        switches=switches_of(recipe),
        steps=plan.steps,
        epochs=plan.epochs,
    )


def look(plan: Plan) -> Lengths:
    """Rows of a plan's data set in tokens."""
    folder = plan.model.folder
    counted = (folder / FAST).is_file()
    return lengths.look(plan.dataset, folder if counted else None, plan.variables["max_seq_len"])


def estimate_of(plan: Plan, recipe: str, machine: Machine, rows: Lengths) -> Estimate:
    """What a plan takes on such a machine; see `asked_by`."""
    world = plan.world
    return estimate(
        asked_by(plan, recipe, rows),
        machine,
        dtype=world.dtype,
        processes=world.processes,
        nodes=world.nodes,
    )


def gains_by_width(found: Estimate) -> bool:
    """Whether the run would be faster if frozen weights, and with them hidden states, were in fp32:
    on a CPU that computes bf16 so, which converts them in each step otherwise."""
    settings = found.asked.settings
    return (
        found.machine.slow_in_bf16
        and found.dtype == "bf16"
        and found.processes * found.nodes == 1
        and TRAITS[settings.method].adapter
        and is_written_out(settings)
        and found.asked.switches.fused
    )


def check_fits(found: Estimate) -> None:
    """Refuse what cannot fit, however wrong the estimate may be within its bounds.

    Raises:
        DoesNotFitError: with what would fit.
    """
    if found.there is None or found.footprint.least <= found.there:
        return
    settings = found.asked.settings
    fitting = choices(
        found.asked,
        found.machine,
        dtype=found.dtype,
        processes=found.processes,
        nodes=found.nodes,
    )
    what = "; or ".join(shlex.join(choice.options) for choice in fitting[:SHOWN])
    raise DoesNotFitError(
        f"the run takes about {gib(found.footprint.total)} of memory"
        + (" in each process" if found.processes > 1 else "")
        + f" ({largest_parts(found)}), and there are {gib(found.there)}",
        where=f"--model {settings.model} --method {settings.method} on {found.machine.name}",
        hint=(f"what would fit, fastest first: {what}" if what else "take a smaller model")
        + "; `train plan` says more, and --no-fit-check tries all the same",
    )


def in_short(found: Estimate) -> str:
    """Memory in a line."""
    there = f" of {gib(found.there)}" if found.there is not None else ""
    each = " in each process" if found.processes * found.nodes > 1 else ""
    return f"about {gib(found.footprint.total)}{there}{each}: {largest_parts(found)}"


def time_in_short(found: Estimate) -> str:
    """Time of the training in a line, where it is known."""
    assert found.seconds is not None
    return f"about {duration(found.seconds)} for {found.tokens:,} tokens, at {found.known_by}"


def largest_parts(found: Estimate) -> str:
    """The parts that take most, in words."""
    parts = sorted(
        ((getattr(found.footprint, name), said) for name, said in PARTS.items()), reverse=True
    )
    return ", ".join(f"{said} {gib(size)}" for size, said in parts[:SHOWN] if size)
