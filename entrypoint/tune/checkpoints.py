"""Checkpoints on disk: whole, hashed, or not there at all.

A checkpoint is a folder step_<N> with tensors, facts and a manifest of hashes. It is written under
a hidden name, flushed to the disk and renamed, so a process that is killed leaves the last one.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from entrypoint.errors import SettingsError
from entrypoint.files import sha256_of, share

VERSION = 1
TENSORS, FACTS, MANIFEST = "state.safetensors", "state.json", "manifest.json"
NAME = re.compile(r"step_(\d+)")

Say = Callable[[str], None]


def save(
    folder: Path, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> Path:
    """Write `folder`/step_<N> atomically, and return it."""
    target, scratch = folder / f"step_{step}", folder / f".step_{step}.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch / TENSORS)
    (scratch / FACTS).write_text(json.dumps({"step": step, **facts}, indent=2), "utf-8")
    files = {name: sha256_of(scratch / name) for name in (TENSORS, FACTS)}
    manifest = {"version": VERSION, "step": step, "sha256": files}
    (scratch / MANIFEST).write_text(json.dumps(manifest, indent=2), "utf-8")
    share(scratch)
    for path in (*scratch.iterdir(), scratch):
        _flush(path)
    # a folder cannot be renamed onto another; the same step is only there after a resume from
    # before it, or broken
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    _flush(folder)
    return target


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and facts of a whole checkpoint."""
    return load_file(path / TENSORS), json.loads((path / FACTS).read_text("utf-8"))


def find(wanted: str, folder: Path, say: Say) -> Path | None:
    """The checkpoint to go on from.

    Args:
        wanted: `auto` for the newest whole one in `folder`, or the path of a checkpoint, or of a
            folder with checkpoints, of which the newest whole one is taken.
        say: is told of each that is passed over.

    Returns:
        None when there is none and `auto` was wanted.

    Raises:
        SettingsError: a path was wanted, and no whole checkpoint is there.
    """
    if wanted == "auto":
        return _newest_whole(folder, say)
    path = Path(wanted)
    if NAME.fullmatch(path.name):
        if fault := fault_of(path):
            raise SettingsError(f"the checkpoint is not whole: {fault}", where=path)
        return path
    for place in (path, path / "checkpoints"):
        if found := _newest_whole(place, say):
            return found
    raise SettingsError(
        "there is no whole checkpoint", where=path, hint="--resume auto starts anew"
    )


def by_step(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints in a folder, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    named = ((NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(name[1]), path) for name, path in named if name)


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and that of step `best`, and what a process
    that was killed left unfinished."""
    for step, path in by_step(folder)[:-keep]:
        if step != best:
            shutil.rmtree(path)
    for path in folder.glob(".step_*.partial"):
        shutil.rmtree(path)


def drop_after(folder: Path, step: int) -> None:
    """Remove checkpoints of later steps: broken ones, or those of a run that went another way."""
    for found, path in by_step(folder):
        if found > step:
            shutil.rmtree(path)


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file is there as it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        if manifest["version"] != VERSION:
            return f"its version is {manifest['version']}, not {VERSION}"
        for name, expected in manifest["sha256"].items():
            if sha256_of(path / name) != expected:
                return f"{name} is not what was written"
        read(path)
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        return f"it cannot be read: {error}"
    return None


def _newest_whole(folder: Path, say: Say) -> Path | None:
    for _, path in reversed(by_step(folder)):
        fault = fault_of(path)
        if fault is None:
            return path
        say(f"passed over {path}: {fault}")
    return None


def _flush(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
