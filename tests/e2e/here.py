"""`train` in the test's own process, evaluations included: what they import is imported once."""

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


def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """A function that takes the arguments of `train`: its exit code, and all that is printed.

    Training still runs in a process of its own, and so do evaluations in several.
    """
    in_a_process = process.run

    def start(
        command: Command, environ: Mapping[str, str], log: Path, terminal: IO[str], **how: Any
    ) -> Exit:
        module, *arguments = command.argv[2:]
        if module != "entrypoint.evaluation" or '"processes": 1,' not in arguments[0]:
            return in_a_process(command, environ, log, terminal, **how)
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
