"""`train plan` from end to end: what a run would take, where it fits, and what would be cheaper."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from entrypoint import presets, sizing, templates, topology
from entrypoint.answers import Answer, described, facts, show
from entrypoint.data import dataset as datasets
from entrypoint.data.lengths import Lengths
from entrypoint.errors import DoesNotFitError, SettingsError
from entrypoint.estimate import (
    Asked,
    Speed,
    estimate,
    speed_by_tokens,
    speed_of,
)
from entrypoint.fitting import choices
from entrypoint.inputs import Inputs
from entrypoint.machines import Machine, named, this_machine
from entrypoint.models import source
from entrypoint.models.card import Model
from entrypoint.models.published import known
from entrypoint.objectives import TASKS
from entrypoint.plan import Plan, make_plan
from entrypoint.rendering import as_wide_as_fits
from entrypoint.results import Told
from entrypoint.run_folder import RunFolder, default_output
from entrypoint.runs.record import metrics_of
from entrypoint.settings import Method, Settings
from entrypoint.topology import Start, World

THIS = "this"
WARM_UP = 2
"""First steps of an earlier run, whose speed does not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What `train plan` is asked beside the settings of a run."""

    on: tuple[str, ...] = (THIS,)
    """Machines by name: `this`, a GPU, a VM size, `gpus` or `azure`."""
    nodes: int = 1
    price: float | None = None
    """Of one machine's hour."""
    tokens_per_second: float | None = None
    """Of all processes together."""
    like: Path | None = None
    """A run folder whose speed is taken."""
    utilization: float | None = None
    """Share of the machine's peak."""


def plan_one(
    settings: Settings, question: Question, environ: Mapping[str, str], told: Told
) -> None:
    """Say what the run would take.

    Raises:
        DoesNotFitError: nothing fits any of the machines; everything is said all the same.
        SettingsError: a machine that is not known, or an earlier run without metrics.
    """
    found = find(settings, environ)
    settings = presets.resolved(
        settings, parameters=found.model.parameters, rows=found.dataset.train.rows
    )
    speed, known_by = question.tokens_per_second, "the given tokens/s"
    if question.like:
        speed, known_by = speed_in(question.like), f"the tokens/s of {question.like}"
    answers: list[Answer] = []
    rows: Lengths | None = None
    named = "method" in settings.explicit
    methods = (settings.method,) if named else get_args(Method)
    for machine in machines(settings, question):
        plan = plan_on(machine, settings, found, question.nodes)
        rows = rows or sizing.look(plan)
        answers.append(answer(plan, machine, rows, question, speed, known_by, methods))
    told(facts(found, answers[0]) | {"machines": [described(each) for each in answers]})
    console = Console(highlight=False, soft_wrap=True)
    show(found, answers, console)
    if all(each.estimate.fits is False and not each.fitting for each in answers):
        raise DoesNotFitError(
            "nothing of this fits",
            where=", ".join(each.estimate.machine.name for each in answers),
            hint="take a smaller model or shorter rows (--max-seq-len), or other machines: "
            "--on gpus, --on azure",
        )


def find(settings: Settings, environ: Mapping[str, str]) -> Inputs:
    """Rows and models that the settings name; published models need no network."""
    dataset = datasets.load(settings.data, environ, tasks=TASKS[settings.objective], dry=False)
    model = card(settings.model, environ)
    teacher = card(settings.teacher, environ) if settings.objective == "kd" else None
    return Inputs(model=model, teacher=teacher, dataset=dataset)


def card(reference: str, environ: Mapping[str, str]) -> Model:
    return known(reference, environ) or source.load(reference, environ, chat=False, dry=True)


def machines(settings: Settings, question: Question) -> list[Machine]:
    """The machines that are asked about, in order."""
    found = []
    for name in question.on:
        if name == THIS:
            world = topology.detect(settings.device, settings.dtype)
            found.append(this_machine(world))
            continue
        there = named(name, settings.nproc_per_node)
        # of a group those that have as many GPUs; one by name is refused when it is planned for
        enough = [one for one in there if one.devices >= (settings.nproc_per_node or 1)]
        found += enough or there
    if not found:
        raise SettingsError("no machine is named", where="--on", hint="this, gpus, azure, or names")
    return found


def plan_on(machine: Machine, settings: Settings, found: Inputs, nodes: int) -> Plan:
    """The plan of the run on such a machine.

    Args:
        settings: with what their preset sets.
    """
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bf16" if machine.bf16 else "fp32"
    world = World(device=machine.device, devices=machine.devices, dtype=dtype, cores=1)
    world = topology.trained_by(world, Start(nodes=nodes), settings.nproc_per_node)
    return make_plan(
        settings,
        world,
        found.model,
        found.dataset,
        root=default_output(settings.objective, source.short_name(settings.model)).absolute(),
        template=settings.recipe or templates.shipped(settings.objective),
        teacher=found.teacher,
    )


def answer(
    plan: Plan,
    machine: Machine,
    rows: Lengths,
    question: Question,
    tokens_per_second: float | None,
    known_by: str,
    methods: tuple[Method, ...] = get_args(Method),
) -> Answer:
    """What the run takes there, and what fits."""
    world = plan.world
    plan, _, found = as_wide_as_fits(plan, machine, rows)
    asked: Asked = found.asked
    speed: Speed | None = None
    if tokens_per_second is not None:
        speed = speed_by_tokens(asked, tokens_per_second, world.ranks, known_by)
    elif question.utilization is not None:
        speed = speed_of(machine, world.dtype, question.utilization)
    there: dict[str, Any] = {
        "dtype": world.dtype,
        "processes": world.processes,
        "nodes": world.nodes,
        "speed": speed,
        "price": question.price,
    }
    return Answer(
        plan=plan,
        estimate=estimate(asked, machine, **there),
        fitting=tuple(choices(asked, machine, **there, methods=methods)),
    )


def speed_in(folder: Path) -> float:
    """Tokens a second of an earlier run, all its processes together.

    Raises:
        SettingsError: it has no metrics of steps behind the first ones.
    """
    run = RunFolder(root=folder)
    steps = metrics_of(run)[WARM_UP:]
    seconds = sum(step.get("step_seconds", 0) for step in steps)
    if not seconds:
        raise SettingsError(
            f"the run has no speed of more than {WARM_UP} steps",
            where=run.metrics,
            hint="give the folder of a run, or --tokens-per-second",
        )
    return float(sum(step["tokens"] for step in steps) / seconds)
