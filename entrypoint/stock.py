"""torchtune's own command line, run as `train sft` runs ours."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from entrypoint import allocator, process
from entrypoint.command import stock_command
from entrypoint.errors import ChildError, ExitCode, Interrupted, SettingsError, TrainingError

NOWHERE = Path(os.devnull)
"""There is no run folder that could hold a log."""


def tune(arguments: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """Run `tune` with these arguments to its end.

    Raises:
        Interrupted: a signal came, and was passed on.
        ChildError: torchtune has said what is wrong with the arguments, or a recipe of ours has.
        TrainingError: a recipe failed.
        SettingsError: another command failed.
    """
    command = stock_command(arguments, environ, allocator.find())
    ended = process.run(command, environ, NOWHERE, sys.stdout)
    if ended.signal_received is not None:
        raise Interrupted(ended.signal_received, "torchtune was interrupted")
    if ended.code == 0:
        return
    if ended.code in set(ExitCode) - {ExitCode.BUG}:
        raise ChildError(ended.code, "torchtune ended with the error above")
    what = f"torchtune ended with exit code {ended.code}"
    if "run" in arguments[:1]:
        raise TrainingError(what, hint="the last lines above say why")
    raise SettingsError(what, where="train tune", hint="the last lines above say why")
