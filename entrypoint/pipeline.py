"""The commands from end to end: settings in, artifacts out, one value handed to the next step."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console

from entrypoint import (
    allocator,
    collect,
    gate,
    inputs,
    launch,
    loggers,
    manifest,
    nodes,
    presets,
    sizing,
    status,
    templates,
    topology,
    tracking,
    zero_first,
)
from entrypoint.command import ALONE, Command, tune_command
from entrypoint.comparing import check_gates, conclude
from entrypoint.errors import SettingsError
from entrypoint.estimate import Estimate
from entrypoint.evaluation.request import Evaluation
from entrypoint.machines import this_machine
from entrypoint.methods import trained_parameters
from entrypoint.models.companions import FAST
from entrypoint.models.source import short_name
from entrypoint.models.tokenizers import CONVERT
from entrypoint.objectives import said
from entrypoint.plan import Plan, make_plan
from entrypoint.preparation import check_rows
from entrypoint.quantization.folder import capability, check_sizes, quantize
from entrypoint.quantizing import samples_of_run
from entrypoint.rendering import as_wide_as_fits
from entrypoint.reporting import report
from entrypoint.results import Told, nowhere
from entrypoint.run_folder import default_output
from entrypoint.schemes import check_device, of_run
from entrypoint.scoring import check_tasks, evaluate_checkpoint
from entrypoint.settings import QuantizationMethod, Settings
from entrypoint.team import Team
from entrypoint.topology import Start
from entrypoint.units import gib

Before = Callable[[Mapping[str, Any], str], None]


def nothing(manifest: Mapping[str, Any], recipe: str) -> None:
    """For a run that nobody looks at before it starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A run that is decided and written out, but not started."""

    plan: Plan
    recipe: str
    command: Command
    estimate: Estimate


def prepare(settings: Settings, environ: Mapping[str, str], start: Start = ALONE) -> Prepared:
    """Decide everything and check that it can start; a dry run writes nothing."""
    machine = topology.detect(settings.device, settings.dtype)
    world = topology.trained_by(machine, start, settings.nproc_per_node)
    found = inputs.find(settings, environ, dry=settings.dry_run)
    model, dataset, teacher = found.model, found.dataset, found.teacher
    settings = presets.resolved(settings, parameters=model.parameters, rows=dataset.train.rows)
    check_tasks(settings, dataset)
    check_gates(settings, dataset)
    if "eval" in settings.then and model.native_tokenizer:
        raise SettingsError(
            f"the model has no {FAST}, so evaluation has no chat template to apply",
            where="--then eval",
            hint=CONVERT,
        )
    for scheme in of_run(settings):
        check_device(scheme, world, capability(world))
        if model.folder.is_dir():
            check_sizes(model.folder, scheme)
    template = settings.recipe or templates.shipped(settings.objective)
    root = settings.output or default_output(settings.objective, short_name(settings.model))
    plan = make_plan(
        settings,
        world,
        model,
        dataset,
        root=root.absolute(),
        template=template,
        loggers=loggers.chosen(settings.log_to, environ),
        teacher=teacher,
    )
    plan, recipe, estimate = as_wide_as_fits(plan, this_machine(world), sizing.look(plan))
    if settings.fit_check:
        sizing.check_fits(estimate)
    command = tune_command(plan.recipe, plan.folder.recipe, world, environ, allocator.find(), start)
    launch.check_output(plan.folder, plan.disk_bytes, resumes=settings.resume is not None)
    return Prepared(plan=plan, recipe=recipe, command=command, estimate=estimate)


def fine_tune(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    met: AbstractContextManager[Any] | None = None,
    before: Before = nothing,
    told: Told = nowhere,
) -> None:
    """`train sft`, `train dpo` and `train kd` in all processes: rank 0 does what is done once, the
    first process of every other node trains as rank 0 decided, the rest wait.

    Args:
        met: see `entrypoint.meeting`; left when all is decided.
        before: is given manifest and recipe of a run that is about to start; may refuse it.
        told: is given the result.

    Raises:
        TrainError: of this process, or of the one of the job that failed first.
    """
    with zero_first.join(topology.read_start(environ), environ) as team:
        start = team.start
        if start.rank == 0:
            lead(settings, topology.alone(environ), team, met or nullcontext(), before, told)
        elif start.leads_node and start.nodes > 1:
            nodes.help_out(settings, topology.alone(environ), team)
        else:
            team.follow()


def lead(
    settings: Settings,
    environ: Mapping[str, str],
    team: Team,
    met: AbstractContextManager[Any],
    before: Before,
    told: Told,
) -> None:
    """Plan, train, and do what --then asks for."""
    console = Console(highlight=False, soft_wrap=True)
    with met:
        prepared = prepare(settings, environ, team.start)
    show_plan(prepared.plan, prepared.estimate, console)
    if settings.dry_run:
        if before is not nothing:
            before(manifest.gather(prepared.plan, prepared.recipe, environ), prepared.recipe)
        console.print(f"\n# {prepared.plan.folder.recipe}\n{prepared.recipe}", markup=False)
        console.print(f"# {prepared.plan.folder.command}\n{prepared.command}", markup=False)
        told(
            {
                "dry_run": True,
                "folder": str(prepared.plan.folder.root),
                "recipe": yaml.safe_load(prepared.recipe),
                "command": str(prepared.command),
            }
        )
        return
    plan = prepared.plan
    nodes.announce(team, plan, prepared.recipe)
    for model in filter(None, (plan.model, plan.teacher)):
        if not model.folder.is_dir():
            step(console, f"putting the model into the cache, once: {model.folder}")
    inputs.ensure_present(plan.model, plan.teacher, environ)
    nodes.show_inputs(team, plan)
    check_rows(plan.dataset, plan.model.folder, prepared.recipe, environ)
    made = manifest.gather(plan, prepared.recipe, environ)
    before(made, prepared.recipe)
    launch.write_inputs(plan, prepared.recipe, prepared.command, made)
    with status.recorded(plan.folder, environ):
        carry_out(prepared, environ, team, console, told)


def carry_out(
    prepared: Prepared, environ: Mapping[str, str], team: Team, console: Console, told: Told
) -> None:
    """Train, and do what --then asks for: the run folder has its inputs."""
    plan, settings = prepared.plan, prepared.plan.settings
    step(console, f"training, {plan.steps} steps")
    launch.train(
        plan.folder,
        prepared.command,
        environ,
        sys.stdout,
        grace=settings.grace,
        abort=team.abort,
    )
    metrics = collect.collect(plan)
    console.print(
        f"loss {metrics.first_loss:.3f} -> {metrics.last_loss:.3f}; model: {plan.folder.final}"
    )
    checkpoints = {"base": plan.model.folder, "tuned": plan.folder.final}
    quantized: list[QuantizationMethod] = []
    evaluations: list[Evaluation] = []
    for action in settings.then:
        if action == "quantize":
            for scheme in of_run(settings):
                method, folder = scheme.method, plan.folder.quantized(scheme.method)
                step(console, f"quantizing ({method})")
                samples = samples_of_run(plan, scheme)
                quantize(plan.folder.final, scheme, plan.world, folder, samples)
                quantized.append(method)
                checkpoints[method] = folder
        if action == "eval":
            evaluations = []
            for label, folder in checkpoints.items():
                step(console, f"evaluating the {label} model")
                evaluations.append(evaluate_checkpoint(plan, label, folder, environ))
    verdicts = (
        conclude(evaluations, settings.gates, plan.folder.comparison, console)
        if evaluations
        else ()
    )
    result = collect.write_result(plan, metrics, evaluations, quantized, verdicts)
    console.print(f"report: {report(plan.folder)}", markup=False)
    tracking.hand_over(plan.folder, plan.variables["loggers"])
    console.print(f"run folder: {plan.folder.root}", markup=False)
    told({"folder": str(plan.folder.root), **result})
    gate.enforce(verdicts, plan.folder.comparison)


def show_plan(plan: Plan, estimate: Estimate, console: Console) -> None:
    """What is decided, a line for each part of it."""
    settings, world = plan.settings, plan.world
    rows = {
        "model": f"{plan.model.reference}: {plan.model.parameters / 1e6:,.0f} M parameters, "
        f"{plan.model.folder}",
        **said(settings, plan.model, plan.teacher),
        "data": f"{plan.dataset.reference}: {plan.dataset.train.rows:,} rows",
        "method": f"{settings.method}, {trained(plan)}, learning rate {plan.variables['lr']:g}",
        "steps": f"{plan.steps} of {settings.batch_size * world.ranks} rows, "
        f"{plan.epochs} epoch{'s' if plan.epochs > 1 else ''}",
        "saving": f"every {settings.save_every} steps, the last {settings.keep} are kept"
        + (f"; validation every {settings.eval_every}" if settings.eval_every else ""),
        "metrics": ", ".join((plan.folder.metrics.name, *plan.variables["loggers"])),
        "world": f"{world.device}, {world.dtype}{of_frozen(estimate)}, {world.cores} CPU cores"
        + (f", {world.ranks} processes" if world.ranks > 1 else "")
        + (f" on {world.nodes} nodes" if world.nodes > 1 else ""),
        "memory": sizing.in_short(estimate),
        **({"time": sizing.time_in_short(estimate)} if estimate.seconds else {}),
        "output": f"{plan.folder.root} (up to {gib(plan.disk_bytes)})",
    }
    for name, value in rows.items():
        console.print(f"{name:<7} {value}", markup=False)


def of_frozen(estimate: Estimate) -> str:
    """The number format of frozen weights in words, where it is another one."""
    frozen = estimate.asked.switches.frozen_dtype
    return "" if frozen in (None, estimate.dtype) else f" (frozen weights in {frozen})"


def trained(plan: Plan) -> str:
    """What the method trains, in words."""
    count = trained_parameters(plan.settings, plan.model)
    rank = plan.variables["model"].get("lora_rank")
    return f"{count / 1e6:,.1f} M trained parameters" + (f" (rank {rank})" if rank else "")


def step(console: Console, title: str) -> None:
    console.print(f"\n== {title}", markup=False)
