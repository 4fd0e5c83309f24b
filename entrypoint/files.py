"""Files and folders that are there whole or not at all, and what they hold."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entrypoint.errors import SettingsError

BLOCK_BYTES = 1 << 20
"""Of a file that are read at a time."""


def write_text(path: Path, text: str) -> None:
    """Write a text file, and the folders above it, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # runs share a cache: each process has a name of its own for what is not whole yet
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """An object of JSON that a run has written, or None where no file is.

    Raises:
        SettingsError: the file holds something else.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it is no object but {type(found).__name__}")
    except ValueError as error:
        raise SettingsError(
            f"{path.name} cannot be read: {error}",
            where=path,
            hint="the file was changed or is cut short: take another run, or make it again",
        ) from error
    return found


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to write to that becomes `folder` at the end, if nothing fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        share(scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def share(folder: Path) -> None:
    """Give a folder and its files the permissions that the user's umask grants to new ones;
    safetensors and temporary folders are created for their owner only."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for path in folder.iterdir():
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
