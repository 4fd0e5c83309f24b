"""The commands from end to end: settings in, artifacts out, one value handed to the next step."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from entrypoint import allocator, collect, launch, manifest, process, templates, topology
from entrypoint.command import Command, evaluation_command, tune_command
from entrypoint.comparison import show
from entrypoint.data import source as data_source
from entrypoint.errors import ChildError, DoesNotFitError, ExitCode, Interrupted, SettingsError
from entrypoint.evaluation.request import EMBEDDED_TASK, Evaluation, Request, read
from entrypoint.models import source as model_source
from entrypoint.models.checkpoint import locate
from entrypoint.models.source import short_name
from entrypoint.plan import OPTION_OF_KEY, Plan, decided, make_plan
from entrypoint.quantization import METHODS, check, check_sizes, quantize, size_bytes
from entrypoint.render import check_agreement, render
from entrypoint.settings import EMBEDDED, Device, Dtype, QuantizationMethod, Settings

OUTPUTS = Path("outputs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A run that is decided and written out, but not started."""

    plan: Plan
    recipe: str
    command: Command


def prepare(settings: Settings, environ: Mapping[str, str]) -> Prepared:
    """Decide everything and check that it can start; a dry run writes nothing."""
    world = topology.detect(settings.device, settings.dtype, environ)
    check_tasks(settings)
    dataset = data_source.load(settings.data)
    model = model_source.load(settings.model, environ, dry=settings.dry_run)
    if "quantize" in settings.then and model.folder.is_dir():
        check_sizes(model.folder)
    template = settings.recipe or templates.shipped(settings.objective, settings.method)
    root = settings.output or default_output(settings.objective, short_name(settings.model))
    plan = make_plan(
        settings,
        world,
        model,
        dataset,
        root=root.absolute(),
        template=template,
        wandb=wandb_is_wanted(environ),
    )
    recipe = render(
        templates.read(template), plan.variables, settings.overrides, name=str(template)
    )
    check_agreement(recipe, decided(plan), OPTION_OF_KEY, name=f"{template} with --set")
    command = tune_command(plan, environ, allocator.find())
    launch.check_output(plan.folder, plan.disk_bytes, resumes=settings.resume is not None)
    return Prepared(plan=plan, recipe=recipe, command=command)


def fine_tune(settings: Settings, environ: Mapping[str, str]) -> None:
    """`train sft`: plan, train, and what --then asks for."""
    console = Console(highlight=False, soft_wrap=True)
    prepared = prepare(settings, environ)
    show_plan(prepared.plan, console)
    if settings.dry_run:
        console.print(f"\n# {prepared.plan.folder.recipe}\n{prepared.recipe}", markup=False)
        console.print(f"# {prepared.plan.folder.command}\n{prepared.command}", markup=False)
        return
    plan = prepared.plan
    if not plan.model.folder.is_dir():
        step(console, f"putting the model into the cache, once: {plan.model.folder}")
    model_source.ensure_present(plan.model, environ)
    launch.write_inputs(
        plan, prepared.recipe, prepared.command, manifest.gather(plan, prepared.recipe, environ)
    )
    step(console, f"training, {plan.steps} steps")
    launch.train(plan, prepared.command, environ, sys.stdout)
    metrics = collect.collect(plan)
    console.print(
        f"loss {metrics.first_loss:.3f} -> {metrics.last_loss:.3f}; model: {plan.folder.final}"
    )
    checkpoints = {"base": plan.model.folder, "tuned": plan.folder.final}
    quantized: list[QuantizationMethod] = []
    evaluations: list[Evaluation] = []
    for action in settings.then:
        if action == "quantize":
            method = METHODS[0]
            step(console, f"quantizing ({method})")
            quantize(plan.folder.final, method, plan.world, plan.folder.quantized(method))
            quantized.append(method)
            checkpoints[method] = plan.folder.quantized(method)
        if action == "eval":
            evaluations = [
                evaluate_checkpoint(plan, label, folder, environ, console)
                for label, folder in checkpoints.items()
            ]
    collect.write_result(
        plan, metrics, {found.label: found.scores for found in evaluations}, quantized
    )
    if evaluations:
        show(evaluations, console)
    console.print(f"run folder: {plan.folder.root}")


def evaluate_checkpoint(
    plan: Plan, label: str, folder: Path, environ: Mapping[str, str], console: Console
) -> Evaluation:
    """Score one of a run's checkpoints on the run's tasks."""
    step(console, f"evaluating the {label} model")
    request = Request(
        label=label,
        checkpoint=folder,
        tasks=evaluation_tasks(plan.settings),
        device=plan.world.device,
        dtype=plan.world.dtype,
        output=plan.folder.evaluation(label),
        limit=plan.settings.limit,
        include=plan.settings.tasks_folder,
    )
    return score(request, environ, plan.folder.logs / f"eval-{label}.log")


def evaluate_one(
    reference: str,
    tasks: Sequence[str],
    environ: Mapping[str, str],
    *,
    include: Path | None,
    label: str | None,
    output: Path | None,
    limit: int | None,
    device: Device,
    dtype: Dtype,
) -> None:
    """`train eval`: score one checkpoint."""
    console = Console(highlight=False, soft_wrap=True)
    world = topology.detect(device, dtype, environ)
    checkpoint = locate(reference, environ)
    name = label or checkpoint.label
    if Path(name).name != name:
        raise SettingsError(f"{name} cannot be the name of a file", where="--label or TRAIN_LABEL")
    if output is None:
        output = checkpoint.run.evaluation(name) if checkpoint.run else default_output("eval", name)
        output = output.with_name(f"{output.name.removesuffix('.json')}.json")
    if output.exists():
        raise SettingsError(
            f"{output} exists already", where="--output", hint="give another file, or a --label"
        )
    launch.check_room(output, 0)
    request = Request(
        label=name,
        checkpoint=checkpoint.folder,
        tasks=tuple(tasks) or (EMBEDDED_TASK,),
        device=world.device,
        dtype=world.dtype,
        output=output.absolute(),
        limit=limit,
        include=include,
    )
    logs = checkpoint.run.logs if checkpoint.run else output.parent
    evaluation = score(request, environ, logs / f"eval-{name}.log")
    show([evaluation], console)
    console.print(f"results: {output}")


def quantize_one(
    reference: str,
    method: QuantizationMethod,
    environ: Mapping[str, str],
    *,
    output: Path | None,
    device: Device,
    dtype: Dtype,
) -> None:
    """`train quantize`: write a quantized copy of one checkpoint."""
    console = Console(highlight=False, soft_wrap=True)
    world = topology.detect(device, dtype, environ)
    checkpoint = locate(reference, environ)
    if output is None:
        run = checkpoint.run
        output = run.quantized(method) if run else default_output("quantize", checkpoint.label)
    check(checkpoint.folder, output)
    launch.check_room(output, size_bytes(checkpoint.folder))
    quantize(checkpoint.folder, method, world, output)
    console.print(f"quantized model: {output}")


def wandb_is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether a Weights & Biases key is configured.

    Raises:
        SettingsError: it is, and the package is not installed.
    """
    if not environ.get("WANDB_API_KEY"):
        return False
    if find_spec("wandb") is None:
        raise SettingsError(
            "a Weights & Biases key is set, but wandb is not installed",
            where="the environment variable WANDB_API_KEY",
            hint="python -m pip install wandb, or unset the variable",
        )
    return True


def check_tasks(settings: Settings) -> None:
    """Find before training what would stop the evaluation after it.

    Raises:
        SettingsError: no task, or one that nobody knows.
    """
    if "eval" not in settings.then:
        return
    if evaluation_tasks(settings) != (EMBEDDED_TASK,):
        from entrypoint.evaluation.harness import task_manager

        task_manager(settings.tasks, settings.tasks_folder)


def evaluation_tasks(settings: Settings) -> tuple[str, ...]:
    """The tasks that `--then eval` scores.

    Raises:
        SettingsError: the data is the user's own and no task is named.
    """
    if settings.tasks:
        return settings.tasks
    if settings.data != EMBEDDED:
        raise SettingsError(
            "evaluating on data of your own needs a task",
            where="--then eval",
            hint="name lm-eval tasks with --tasks, or write one and give its --tasks-folder",
        )
    return (EMBEDDED_TASK,)


def score(request: Request, environ: Mapping[str, str], log: Path) -> Evaluation:
    """Evaluate in a process of its own.

    Raises:
        ChildError: it failed; it has printed why.
        Interrupted: a signal came.
    """
    command = evaluation_command(request, environ, allocator.find())
    ended = process.run(command, environ, log, sys.stdout)
    if ended.signal_received is not None:
        raise Interrupted(ended.signal_received, "the evaluation was interrupted", where=str(log))
    if ended.code == launch.SIGKILL_EXIT:
        raise DoesNotFitError(
            f"the evaluation of {request.label} was killed, most likely for want of memory",
            where=log,
        )
    if ended.code:
        known = ended.code if ended.code in set(ExitCode) else ExitCode.BUG
        raise ChildError(known, f"the evaluation of {request.label} failed", where=log)
    return read(request.output)


def show_plan(plan: Plan, console: Console) -> None:
    settings, world = plan.settings, plan.world
    rows = {
        "model": f"{plan.model.reference}: {plan.model.parameters / 1e6:,.0f} M parameters, "
        f"{plan.model.folder}",
        "data": f"{plan.dataset.reference}: {plan.dataset.train.rows:,} rows",
        "method": f"{settings.method}, learning rate {plan.variables['lr']:g}",
        "steps": f"{plan.steps} of {settings.batch_size} rows, "
        f"{plan.epochs} epoch{'s' if plan.epochs > 1 else ''}",
        "saving": f"every {settings.save_every} steps, the last {settings.keep} are kept"
        + (f"; validation every {settings.eval_every}" if settings.eval_every else ""),
        "world": f"{world.device}, {world.dtype}, {world.cores} CPU cores",
        "output": f"{plan.folder.root} (up to {plan.disk_bytes / launch.GIB:.1f} GiB)",
    }
    for name, value in rows.items():
        console.print(f"{name:<7} {value}", markup=False)


def step(console: Console, title: str) -> None:
    console.print(f"\n== {title}", markup=False)


def default_output(kind: str, name: str) -> Path:
    """A folder under outputs/ that says what and when."""
    return OUTPUTS / f"{kind}-{Path(name).name}-{datetime.now():%Y%m%d-%H%M%S}"
