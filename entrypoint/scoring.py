"""Score checkpoints with the lm-eval harness, each in a process of its own."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from omegaconf import OmegaConf
from rich.console import Console

from entrypoint import allocator, launch, process, topology, tracking
from entrypoint.command import evaluation_command
from entrypoint.comparison.table import show
from entrypoint.data import dataset as datasets
from entrypoint.data.dataset import Dataset
from entrypoint.data.shapes import Task
from entrypoint.data.source import short_name
from entrypoint.errors import (
    ChildError,
    DataError,
    DoesNotFitError,
    ExitCode,
    Interrupted,
    SettingsError,
)
from entrypoint.evaluation.naming import declared
from entrypoint.evaluation.request import Evaluation, Request, Rows, read
from entrypoint.models.checkpoint import Checkpoint, locate
from entrypoint.models.companions import FAST
from entrypoint.plan import LONGEST_ROW, Plan
from entrypoint.results import Told, nowhere
from entrypoint.run_folder import default_output
from entrypoint.settings import EMBEDDED, Device, Dtype, Settings

OUTPUT_OPTION = "--output or TRAIN_EVAL_OUTPUT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What `train eval` and `train compare` are asked to score with."""

    tasks: tuple[str, ...] = ()
    tasks_folder: Path | None = None
    data: str | None = None
    """Whose held-out rows are scored; None takes the built-in ones when there is no task either."""
    limit: int | None = None
    fewshot: int | None = None
    batch_size: int | None = None
    chat_template: bool | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    max_seq_len: int | None = None
    nproc_per_node: int | None = None
    device: Device = "auto"
    dtype: Dtype = "auto"


def check_tasks(settings: Settings, dataset: Dataset) -> None:
    """Find before training what would stop the evaluation after it.

    Raises:
        SettingsError: there is nothing to score on, or a task that nobody knows.
    """
    if "eval" not in settings.then:
        return
    if settings.tasks:
        _check_names(settings.tasks, settings.tasks_folder)
    elif dataset.evaluation is None:
        raise SettingsError(
            "there are no held-out rows to score the models on",
            where="--then eval",
            hint="give --data a folder with train.jsonl and eval.jsonl, which `train prepare` "
            "writes, or name lm-eval tasks with --tasks",
        )


def _check_names(tasks: tuple[str, ...], folder: Path | None) -> None:
    if declared(tasks, folder) == set(tasks):
        return
    # imports lm-eval and indexes its tasks, which takes many seconds
    from entrypoint.evaluation.harness import task_manager

    task_manager(tasks, folder)


def evaluate_checkpoint(
    plan: Plan, label: str, folder: Path, environ: Mapping[str, str]
) -> Evaluation:
    """Score one of a run's checkpoints: on --tasks, or on the held-out rows of the run's data."""
    settings, held_out = plan.settings, plan.dataset.evaluation
    gpus = plan.world.devices if plan.world.device == "cuda" else 1
    rows = None
    if not settings.tasks:
        assert held_out is not None
        rows = Rows(
            name=task_name(settings.data),
            path=held_out.path,
            kind=plan.dataset.task,
            max_seq_len=plan.variables["max_seq_len"],
            train_on=OmegaConf.load(plan.folder.recipe).tokenizer.get("train_on", "all"),
            examples=plan.dataset.train.path,
        )
    request = Request(
        label=label,
        checkpoint=folder,
        tasks=settings.tasks,
        rows=rows,
        device=plan.world.device,
        dtype=plan.world.dtype,
        processes=min(gpus, settings.limit or gpus),
        output=plan.folder.evaluation(label),
        limit=settings.limit,
        include=settings.tasks_folder,
    )
    try:
        return score(request, environ, plan.folder.logs / f"eval-{label}.log")
    except Interrupted as error:
        error.hint = f"the same command with --output {plan.folder.root} --resume auto goes on"
        raise


def evaluate_one(
    reference: str,
    asked: Asked,
    environ: Mapping[str, str],
    *,
    base: str | None,
    label: str | None,
    output: Path | None,
    told: Told = nowhere,
) -> None:
    """`train eval`: score one checkpoint."""
    console = Console(highlight=False, soft_wrap=True)
    request = prepare(asked, environ)
    checkpoint = locate(reference, environ, base)
    name = label or checkpoint.label
    if Path(name).name != name:
        raise SettingsError(f"{name} cannot be the name of a file", where="--label or TRAIN_LABEL")
    if output is None:
        output = checkpoint.run.evaluation(name) if checkpoint.run else default_output("eval", name)
        output = output.with_name(f"{output.name.removesuffix('.json')}.json")
    if output.exists():
        raise SettingsError(
            f"{output} exists already", where=OUTPUT_OPTION, hint="give another file, or a --label"
        )
    launch.check_room(output, 0, OUTPUT_OPTION)
    request = of_checkpoint(request, checkpoint, name, output.absolute())
    logs = checkpoint.run.logs if checkpoint.run else output.parent
    evaluation = score(request, environ, logs / f"eval-{name}.log")
    tracking.attach(output, name, evaluation.scores)
    show([evaluation], console)
    console.print(f"results: {output}", markup=False)
    told(
        {
            "results": str(output),
            "label": evaluation.label,
            "scores": dict(evaluation.scores),
            "rows": dict(evaluation.rows),
            "performance": dict(evaluation.performance),
        }
    )


def prepare(asked: Asked, environ: Mapping[str, str]) -> Request:
    """A request of which only the checkpoint is open; reads and prepares the rows.

    Raises:
        SettingsError: a task, device or number of processes that does not exist.
        DataError: the rows cannot be read.
    """
    world = topology.detect(asked.device, asked.dtype)
    processes = asked.nproc_per_node or (world.devices if world.device == "cuda" else 1)
    if asked.limit:
        processes = min(processes, asked.limit)
    if world.device == "cuda" and processes > world.devices:
        raise SettingsError(
            f"{processes} processes need as many GPUs, and there are {world.devices}",
            where="--nproc-per-node or TRAIN_EVAL_NPROC_PER_NODE",
        )
    if asked.tasks:
        _check_names(asked.tasks, asked.tasks_folder)
    reference = asked.data or (None if asked.tasks else EMBEDDED)
    return Request(
        label="",
        checkpoint=Path(),
        output=Path(),
        tasks=asked.tasks,
        rows=rows_of(reference, environ, asked.max_seq_len) if reference else None,
        device=world.device,
        dtype=world.dtype,
        processes=processes,
        limit=asked.limit,
        batch_size=asked.batch_size,
        fewshot=asked.fewshot,
        chat_template=asked.chat_template,
        max_new_tokens=asked.max_new_tokens,
        stop=asked.stop,
        include=asked.tasks_folder,
    )


def of_checkpoint(request: Request, checkpoint: Checkpoint, label: str, output: Path) -> Request:
    """The request, for this checkpoint."""
    if request.rows and not (checkpoint.folder / FAST).is_file():
        raise DataError(
            f"the model has no {FAST}, so its tokens cannot be counted", where=checkpoint.folder
        )
    return replace(
        request,
        label=label,
        checkpoint=checkpoint.folder,
        adapter=checkpoint.adapter,
        output=output,
    )


def rows_of(reference: str, environ: Mapping[str, str], max_seq_len: int | None) -> Rows:
    """The held-out rows of a data set; all of them where none are held out."""
    dataset = datasets.load(reference, environ, tasks=get_args(Task), dry=False)
    held_out = dataset.evaluation
    return Rows(
        name=task_name(reference),
        path=(held_out or dataset.train).path,
        kind=dataset.task,
        max_seq_len=max_seq_len or LONGEST_ROW,
        examples=dataset.train.path if held_out else None,
    )


def task_name(reference: str) -> str:
    """What the rows of a data set are called in results."""
    return "".join(letter if letter.isalnum() else "_" for letter in short_name(reference))


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
    if ended.code in launch.SIGKILL_EXITS:
        raise DoesNotFitError(
            f"the evaluation of {request.label} was killed, most likely for want of memory",
            where=log,
        )
    if ended.code:
        known = ended.code if ended.code in set(ExitCode) else ExitCode.BUG
        raise ChildError(known, f"the evaluation of {request.label} failed", where=log)
    return read(request.output)
