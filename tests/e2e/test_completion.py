"""Completion in a real zsh and a real fish; bash is in tests/unit/test_terminal.py."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SECONDS = 60


def shell(name: str) -> str:
    """Its path; CI has it."""
    found = shutil.which(name)
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed")
    assert found, f"{name} is not installed"
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With `train` on PATH, and a home that has no settings."""
    command = tmp_path / "bin" / "train"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m entrypoint "$@"\n')
    command.chmod(0o755)
    return os.environ | {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "TERM": "dumb",
    }


def test_fish_completes_with_the_script(environment: dict[str, str]):
    script = (
        "train completion fish | source\n"
        'complete --do-complete "train mod"\ncomplete --do-complete "train sft --method qa"'
    )
    ended = subprocess.run(
        (shell("fish"), "--no-config", "-c", script),
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [line.partition("\t")[0] for line in ended.stdout.splitlines()]
    assert found == ["models", "qat", "qat-lora"], ended.stderr


def test_zsh_completes_with_the_script(environment: dict[str, str], tmp_path: Path):
    """Zsh completes for who types: its line editor needs a terminal."""
    zsh = shell("zsh")
    child, terminal = pty.fork()
    if not child:
        os.execve(zsh, [zsh, "-f", "-i"], environment)
    try:
        dump = tmp_path / "zcompdump"
        os.write(
            terminal,
            f"autoload -Uz compinit && compinit -u -d {dump}\n"
            'eval "$(train completion zsh)"; echo rea""dy\n'.encode(),
        )
        wait_for(terminal, "ready\r\n")
        os.write(terminal, b"train mod\t")
        wait_for(terminal, "train models")
        os.write(terminal, b"\x15train sft --meth\t")
        wait_for(terminal, "train sft --method ")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)


def wait_for(terminal: int, words: str) -> None:
    """Read until a terminal shows these words."""
    seen, end = b"", time.monotonic() + SECONDS
    while words.encode() not in seen:
        left = end - time.monotonic()
        assert left > 0, seen.decode(errors="replace")
        if select.select([terminal], [], [], left)[0]:
            seen += os.read(terminal, 65_536)
