"""Check that a run can start, write its inputs, and train."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from entrypoint import process, status
from entrypoint.command import Command
from entrypoint.errors import (
    ChildError,
    DoesNotFitError,
    ExitCode,
    Interrupted,
    SettingsError,
    TrainingError,
)
from entrypoint.files import write_json, write_text
from entrypoint.plan import Plan
from entrypoint.run_folder import RunFolder
from entrypoint.team import Abort
from entrypoint.units import GIB

OUTPUT_OPTION = "--output or TRAIN_OUTPUT"
OUT_OF_MEMORY = ("CUDA out of memory", "OutOfMemoryError", "DefaultCPUAllocator: not enough memory")
SIGKILL_EXITS = (-9, 137)
"""Of a process, and of torchrun when one of its processes was killed."""
SIGNAL_OF_EXIT: Mapping[int, int] = {
    code: code - 128 for code in (ExitCode.SIGINT, ExitCode.SIGTERM)
}
FIRST_FAILURE = re.compile(r"rank \d+ failed first, with exit code -?\d+")
"""What `entrypoint.tune` says of several processes."""


def check_output(folder: RunFolder, needed_bytes: int, *, resumes: bool = False) -> None:
    """Make sure that the run folder is free, writable and on a disk with room; writes nothing.

    Args:
        resumes: whether a run that has not ended may be there already.

    Raises:
        SettingsError: the folder holds something already, or cannot be written.
        DoesNotFitError: the disk has too little room.
    """
    root = folder.root
    if resumes and folder.result.exists():
        raise SettingsError(
            f"the run in {root} has ended; there is nothing to resume",
            where=OUTPUT_OPTION,
            hint="leave --resume out and give a folder that does not exist yet",
        )
    unfinished = resumes and folder.recipe.exists()
    if unfinished and (pid := status.process_here(folder)) is not None:
        raise SettingsError(
            f"process {pid} is at work on the run in {root}",
            where=OUTPUT_OPTION,
            hint="wait for its end, or end it first; two would write the same files",
        )
    if root.exists() and not unfinished and (not root.is_dir() or any(root.iterdir())):
        kind = "already holds a run" if folder.recipe.exists() else "exists and is not empty"
        raise SettingsError(
            f"the output folder {root} {kind}",
            where=OUTPUT_OPTION,
            hint="give a folder that does not exist yet"
            + ("" if resumes or not folder.recipe.exists() else ", or go on with --resume auto"),
        )
    check_room(root, needed_bytes)


def check_room(path: Path, needed_bytes: int, option: str = OUTPUT_OPTION) -> None:
    """Make sure that `path` can be created, with so many bytes in it.

    Args:
        option: what named the path, for the message.

    Raises:
        SettingsError: a folder on the way cannot be written.
        DoesNotFitError: the disk has too little room.
    """
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise SettingsError(
            f"the output {path} cannot be written: no permission in {parent}", where=option
        )
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        raise DoesNotFitError(
            f"up to {needed_bytes / GIB:.2f} GiB will be written and {free / GIB:.2f} GiB are free",
            where=parent,
            hint="free some room or choose another --output",
        )


def write_inputs(plan: Plan, recipe: str, command: Command, manifest: Mapping[str, Any]) -> None:
    """Create the run folder with everything that the run is made from.

    What an interrupted run has made after its training is removed: it is made again.

    Raises:
        SettingsError: the folder cannot be written.
    """
    try:
        plan.folder.root.mkdir(parents=True, exist_ok=True)
        for folder in (*plan.folder.results, *plan.folder.checkpoints.glob("epoch_*")):
            shutil.rmtree(folder, ignore_errors=True)
        write_text(plan.folder.recipe, recipe)
        write_text(plan.folder.command, f"{command}\n")
        write_json(plan.folder.manifest, manifest)
    except OSError as error:
        raise SettingsError(
            f"the output folder cannot be written: {error.strerror}", where=plan.folder.root
        ) from error


def train(
    folder: RunFolder,
    command: Command,
    environ: Mapping[str, str],
    terminal: IO[str],
    *,
    grace: int,
    abort: Abort,
) -> None:
    """Train to the end.

    Args:
        grace: seconds from a signal to the end by force.
        abort: the failure of another process of the job, which ends this one's part.

    Raises:
        Interrupted: a signal came, here or to another process that trains.
        ChildError: the recipe has said what is wrong and ended with one of our exit codes, or
            another process of the job failed.
        TrainingError: the process failed for another reason.
    """
    abort.check()
    log = folder.logs / "train.log"
    ended = process.run(command, environ, log, terminal, grace=grace, ends=abort.ends)
    if ended.code == 0:
        if ended.signal_received is not None:
            raise _interrupted(folder, ended.code, ended.signal_received, grace)
        return
    number = ended.signal_received or SIGNAL_OF_EXIT.get(ended.code)
    if number is not None:
        raise _interrupted(folder, ended.code, number, grace)
    abort.check()
    if ended.code in set(ExitCode) - {ExitCode.BUG}:
        raise ChildError(ended.code, "training ended with the error above", where=log)
    if ended.code in SIGKILL_EXITS or any(sign in ended.tail for sign in OUT_OF_MEMORY):
        hint = (
            "memory ran out, most likely: lower --batch-size or --max-seq-len, or use --method lora"
        )
    else:
        hint = "the last lines above say why; --debug shows our own part of it"
    who = FIRST_FAILURE.search(ended.tail)
    what = who[0] if who else f"training failed with exit code {ended.code}"
    raise TrainingError(what, where=log, hint=hint)


def _interrupted(folder: RunFolder, code: int, number: int, grace: int) -> Interrupted:
    """What a signal has left: says whether there is something to go on from."""
    saved = any(folder.checkpoints.glob("step_*"))
    if code in SIGKILL_EXITS:
        what = f"training did not end within {grace} s of the signal and was killed"
        what += "; the checkpoint before is kept" if saved else ""
    else:
        what = "training was interrupted; "
        what += "a checkpoint is saved" if saved else "there was nothing to save yet"
    return Interrupted(
        number,
        what,
        where=str(folder.checkpoints),
        hint=f"the same command with --output {folder.root} --resume auto goes on",
    )
