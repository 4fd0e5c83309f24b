"""Starts `train`: in a process of its own, or in the test's, which imports what is heavy once."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from entrypoint import process
from entrypoint.cli import run
from entrypoint.command import Command
from entrypoint.evaluation import __main__ as evaluation
from entrypoint.process import Exit

Train = Callable[..., tuple[int, str]]
Ended = subprocess.CompletedProcess[str]


def in_a_process(*arguments: object, **environment: str) -> Ended:
    """As a shell starts it, with variables added."""
    return subprocess.run(
        (sys.executable, "-m", "entrypoint", *map(str, arguments)),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """A function that takes the arguments of `train`: its exit code, and all that is printed.

    An evaluation runs here too. Training still has a process of its own.
    """
    elsewhere = process.run

    def start(
        command: Command, environ: Mapping[str, str], log: Path, terminal: IO[str], **how: Any
    ) -> Exit:
        module, *arguments = command.argv[2:]
        if module != "entrypoint.evaluation" or '"processes": 1,' not in arguments[0]:
            return elsewhere(command, environ, log, terminal, **how)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [module, *arguments])
            return Exit(code=evaluation.main(), signal_received=None, tail="")

    monkeypatch.setattr(process, "run", start)

    def train(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return train
