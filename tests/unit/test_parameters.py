"""entrypoint.parameters: what options take and refuse."""

import click
import pytest

from entrypoint.cli import train
from entrypoint.parameters import Number

NUMBERS = [
    (name, option)
    for name, command in sorted(train.commands.items())
    for option in command.params
    if "float" in option.type.name
]
"""All options of all commands that take more than whole numbers."""


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_no_option_takes_a_number_that_is_not_finite(value: str):
    assert {option.name for _, option in NUMBERS} >= {"lr", "price", "temperature", "beta"}
    for name, option in NUMBERS:
        context = click.Context(train.commands[name])
        with pytest.raises(click.BadParameter):
            option.type_cast_value(context, value)


def test_bounds_of_numbers_hold():
    share = Number(min=0, max=1, max_open=True)
    assert share.convert("0.25", None, None) == 0.25
    for outside in ("1", "-0.1"):
        with pytest.raises(click.BadParameter, match="not in the range"):
            share.convert(outside, None, None)
