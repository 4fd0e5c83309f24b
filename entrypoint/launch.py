"""Check that a run can start, write its inputs, and train."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from entrypoint import process
from entrypoint.command import Command
from entrypoint.errors import DoesNotFitError, Interrupted, SettingsError, TrainingError
from entrypoint.files import write_json, write_text
from entrypoint.plan import Plan
from entrypoint.run_folder import RunFolder

GIB = 1024**3
OUTPUT_OPTION = "--output or TRAIN_OUTPUT"
OUT_OF_MEMORY = ("CUDA out of memory", "OutOfMemoryError", "DefaultCPUAllocator: not enough memory")
SIGKILL_EXIT = -9


def check_output(folder: RunFolder, needed_bytes: int) -> None:
    """Make sure that the run folder is free, writable and on a disk with room; writes nothing.

    Raises:
        SettingsError: the folder holds something already, or cannot be written.
        DoesNotFitError: the disk has too little room.
    """
    root = folder.root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        kind = "already holds a run" if folder.recipe.exists() else "exists and is not empty"
        raise SettingsError(
            f"the output folder {root} {kind}",
            where=OUTPUT_OPTION,
            hint="give a folder that does not exist yet",
        )
    check_room(root, needed_bytes)


def check_room(path: Path, needed_bytes: int) -> None:
    """Make sure that `path` can be created, with so many bytes in it.

    Raises:
        SettingsError: a folder on the way cannot be written.
        DoesNotFitError: the disk has too little room.
    """
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise SettingsError(
            f"the output {path} cannot be written: no permission in {parent}", where=OUTPUT_OPTION
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

    Raises:
        SettingsError: the folder cannot be written.
    """
    try:
        plan.folder.root.mkdir(parents=True, exist_ok=True)
        write_text(plan.folder.recipe, recipe)
        write_text(plan.folder.command, f"{command}\n")
        write_json(plan.folder.manifest, manifest)
    except OSError as error:
        raise SettingsError(
            f"the output folder cannot be written: {error.strerror}", where=plan.folder.root
        ) from error


def train(plan: Plan, command: Command, environ: Mapping[str, str], terminal: IO[str]) -> None:
    """Train to the end.

    Raises:
        Interrupted: a signal came.
        TrainingError: the process failed for another reason.
    """
    log = plan.folder.logs / "train.log"
    ended = process.run(command, environ, log, terminal)
    if ended.signal_received is not None:
        raise Interrupted(
            ended.signal_received,
            "training was interrupted; what the last whole epoch left is kept",
            where=str(plan.folder.checkpoints),
        )
    if ended.code == 0:
        return
    if ended.code == SIGKILL_EXIT or any(sign in ended.tail for sign in OUT_OF_MEMORY):
        hint = (
            "memory ran out, most likely: lower --batch-size or --max-seq-len, or use --method lora"
        )
    else:
        hint = "the last lines above say why; --debug shows our own part of it"
    raise TrainingError(f"training failed with exit code {ended.code}", where=log, hint=hint)
