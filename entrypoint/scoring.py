"""Score checkpoints with the lm-eval harness, each in a process of its own."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from entrypoint import allocator, launch, process, topology
from entrypoint.command import evaluation_command
from entrypoint.comparison import show
from entrypoint.errors import ChildError, DoesNotFitError, ExitCode, Interrupted, SettingsError
from entrypoint.evaluation.request import EMBEDDED_TASK, Evaluation, Request, read
from entrypoint.models.checkpoint import locate
from entrypoint.plan import Plan
from entrypoint.run_folder import default_output
from entrypoint.settings import EMBEDDED, Device, Dtype, Settings


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


def evaluate_checkpoint(
    plan: Plan, label: str, folder: Path, environ: Mapping[str, str]
) -> Evaluation:
    """Score one of a run's checkpoints on the run's tasks."""
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
    world = topology.detect(device, dtype)
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
