"""Types of the values that options take, beyond click's own."""

import math
import shlex
from typing import Any

import click
from click.shell_completion import CompletionItem

POSITIVE = click.IntRange(min=1)


class Number(click.FloatRange):
    """A finite number within bounds. click's own range has `nan` in it, and `inf` where it has no
    upper bound."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


ABOVE_ZERO = Number(min=0, min_open=True)


class CommaList(click.ParamType[tuple[str, ...], Any]):
    """`a,b` as ("a", "b"), each one of `choices`.

    Args:
        choices: the allowed items; None allows any.
    """

    name = "list"

    def __init__(self, choices: tuple[str, ...] | None = None) -> None:
        self.choices = choices

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"{{{','.join(self.choices)}}}" if self.choices else "A,B,…"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The items that may follow what is there, after its last comma."""
        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{item}")
            for item in self.choices or ()
            if item.startswith(last) and item not in before.split(",")
        ]

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        items = tuple(item.strip() for item in str(value).split(",") if item.strip())
        for item in items:
            if self.choices and item not in self.choices:
                self.fail(f"{item!r} is not one of {', '.join(self.choices)}.", param, ctx)
        if len(set(items)) < len(items):
            self.fail(f"{value!r} names something twice.", param, ctx)
        return items


class AutoOrCount(click.ParamType[int | None, Any]):
    """`auto` as None, or a number of at least 1."""

    name = "auto or count"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        return None if value in (None, "auto") else POSITIVE.convert(value, param, ctx)


class Override(click.ParamType[str, Any]):
    """`key=value`; a variable holds several, split and quoted as a shell does."""

    name = "key=value"

    def split_envvar_value(self, rv: str) -> list[str]:
        return shlex.split(rv)


class Condition(click.ParamType[str, Any]):
    """`score>=bound`; a variable holds several, split and quoted as a shell does."""

    name = "condition"

    def split_envvar_value(self, rv: str) -> list[str]:
        return shlex.split(rv)


class Columns(click.ParamType[dict[str, str], Any]):
    """`field=column,field=column`."""

    name = "columns"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        pairs = [item.partition("=") for item in str(value).split(",") if item.strip()]
        for field, equals, column in pairs:
            if not (field.strip() and equals and column.strip()):
                self.fail(f"{field!r} has no column: write FIELD=COLUMN,…", param, ctx)
        return {field.strip(): column.strip() for field, _, column in pairs}
