"""Calls `docker` as a user does."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT_S = 1800

Ended = subprocess.CompletedProcess[str]


def call(
    *argv: object,
    code: int | None = 0,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Ended:
    """Run a command; its output is one text, standard error included.

    Args:
        code: the exit code that it must have; None takes any.
    """
    ended = subprocess.run(
        tuple(map(str, argv)),
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
        **options,
    )
    assert code is None or ended.returncode == code, f"{argv}: {ended.returncode}\n{ended.stdout}"
    return ended


def docker(*arguments: object, code: int | None = 0, **options: Any) -> Ended:
    return call("docker", *arguments, code=code, **options)


def build(*arguments: object, code: int | None = 0, context: Path = ROOT, **options: Any) -> Ended:
    """`docker buildx build`, with the wheels on hand if there are some."""
    wheels = os.environ.get("WHEELS")
    on_hand = ("--build-context", f"wheels={wheels}") if wheels else ()
    argv = ("buildx", "build", "--progress", "plain", *on_hand, *arguments, context)
    return docker(*argv, code=code, **options)


def train(
    image: str, *arguments: object, run: tuple[object, ...] = (), code: int | None = 0
) -> Ended:
    """`docker run --rm IMAGE train ...`, without a network; `run` holds options of `docker run`."""
    # other tests run beside it
    given = ("--network", "none", "--env", "OMP_NUM_THREADS=1", *run)
    return docker("run", "--rm", "--init", *given, image, "train", *arguments, code=code)


def copy_of_project(folder: Path) -> Path:
    """The files that git knows of or would add, as a user has them after cloning."""
    listed = call("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder
