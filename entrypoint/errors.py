"""What can go wrong, and with which exit code the process ends."""

import enum
import textwrap

COLUMNS = 100
"""What a message's lines fit into; a path is not cut, however long."""


def fitted(message: str) -> str:
    """The message with its lines broken at spaces, those that go on further in."""
    lines = []
    for line in message.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(
            line, COLUMNS, subsequent_indent=f"{indent}  ", drop_whitespace=True,
            break_long_words=False, break_on_hyphens=False, replace_whitespace=False,
        ) or [""]  # fmt: skip
    return "\n".join(lines)


class ExitCode(enum.IntEnum):
    """The exit codes of `train`, a contract with scripts and schedulers."""

    OK = 0
    BUG = 1
    USAGE = 2
    SETTINGS = 3
    DATA = 4
    MODEL = 5
    DOES_NOT_FIT = 6
    TRAINING = 7
    GATE = 8
    SIGINT = 130
    SIGTERM = 143


class TrainError(Exception):
    """An error that its reader can act on.

    Args:
        what: what is wrong, in one sentence.
        where: file and line, option, environment variable or layer that it was found in.
        hint: what to do about it.
    """

    exit_code = ExitCode.BUG

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  to do: {self.hint}")
        return "\n".join(lines)


class SettingsError(TrainError):
    """Settings, recipe or output folder that no run can be made of."""

    exit_code = ExitCode.SETTINGS


class DataError(TrainError):
    """A data set that is missing, malformed or empty."""

    exit_code = ExitCode.DATA


class ModelError(TrainError):
    """A model that is missing, gated, corrupt or of an unsupported kind."""

    exit_code = ExitCode.MODEL


class DoesNotFitError(TrainError):
    """Too little disk or memory for what was planned."""

    exit_code = ExitCode.DOES_NOT_FIT


class TrainingError(TrainError):
    """The training process failed."""

    exit_code = ExitCode.TRAINING


class ChildError(TrainError):
    """A process of ours ended with one of our own exit codes, having said why.

    Args:
        exit_code: its exit code.
    """

    def __init__(self, exit_code: int, what: str, **context: object) -> None:
        super().__init__(what, **context)  # type: ignore[arg-type]
        self.exit_code = ExitCode(exit_code)


class Interrupted(TrainError):
    """A signal ended the run.

    Args:
        signal_number: SIGINT (2) or SIGTERM (15); the exit code is 128 more, as shells do.
    """

    def __init__(self, signal_number: int, what: str, **context: str) -> None:
        super().__init__(what, **context)
        self.exit_code = ExitCode(128 + signal_number)
