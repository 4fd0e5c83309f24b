"""A finding: a fact, how good or bad it is, what it means and what to do."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the doctor's."""

    check: str
    level: Level
    """A problem stops a run or makes it wrong; a note is good to know."""
    what: str
    means: str
    to_do: str | None = None


def good(check: str, what: str, means: str) -> Finding:
    return Finding(check=check, level="ok", what=what, means=means)


def note(check: str, what: str, means: str, to_do: str | None = None) -> Finding:
    return Finding(check=check, level="note", what=what, means=means, to_do=to_do)


def problem(check: str, what: str, means: str, to_do: str) -> Finding:
    return Finding(check=check, level="problem", what=what, means=means, to_do=to_do)
