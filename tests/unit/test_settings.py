"""entrypoint.settings and the options that fill it."""

import json
import math
from typing import Any

import click
import pytest

from entrypoint.cli import train
from entrypoint.commands.dpo import dpo
from entrypoint.commands.kd import kd
from entrypoint.commands.sft import sft
from entrypoint.errors import SettingsError
from entrypoint.settings import OF_OBJECTIVE, Settings

COMMAND_LINE_ONLY = {"explicit", "objective"}
OF_OUTPUT = {"as_json"}
PARENT = click.Context(train, **train.context_settings)


def settings_of(command: click.Command, *arguments: str) -> dict[str, Any]:
    """What a command takes for settings: all but how its result is printed."""
    params = command.make_context("any", list(arguments), parent=PARENT).params
    return {name: value for name, value in params.items() if name not in OF_OUTPUT}


def parsed(*arguments: str) -> dict[str, Any]:
    """What `train sft` makes of arguments; as a command of its group, which click remembers."""
    return settings_of(sft, *arguments)


@pytest.mark.parametrize(
    "name",
    [
        "epochs",
        "max_steps",
        "batch_size",
        "lr",
        "max_seq_len",
        "limit",
        "save_every",
        "keep",
        "grace",
        "eval_every",
        "early_stop",
        "beta",
        "temperature",
    ],
)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_numbers_must_be_positive(name: str, value: float):
    with pytest.raises(SettingsError, match=f"TRAIN_{name.upper()}"):
        Settings(**{name: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_the_share_that_is_dropped_is_one(value: float):
    with pytest.raises(SettingsError, match="TRAIN_LORA_DROPOUT"):
        Settings(lora_dropout=value)


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"resume": "auto"}, "--output"),
        ({"early_stop": 3}, "--eval-every"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "--label-smoothing"),
        ({"label_smoothing": 0.5}, "--label-smoothing"),
        ({"alpha": 1.5}, "--alpha"),
    ],
)
def test_what_needs_another_option_names_it(settings: dict, option: str):
    with pytest.raises(SettingsError, match=option):
        Settings(**settings)


def test_not_a_number_is_refused():
    with pytest.raises(SettingsError, match="TRAIN_LR"):
        Settings(lr=float("nan"))


@pytest.mark.parametrize(("objective", "command"), [("sft", sft), ("dpo", dpo), ("kd", kd)])
def test_every_setting_has_an_option_and_a_variable(objective: str, command: click.Command):
    options = {option.name: option for option in command.params}
    foreign = {
        name for other, names in OF_OBJECTIVE.items() if other != objective for name in names
    }
    assert options.keys() == (
        set(Settings.__dataclass_fields__) - COMMAND_LINE_ONLY - foreign | OF_OUTPUT
    )
    for option in options.values():
        assert isinstance(option, click.Option)
        assert option.envvar == f"TRAIN_{option.opts[0].strip('-').replace('-', '_').upper()}"


@pytest.mark.parametrize("command", [sft, dpo, kd])
def test_option_defaults_are_the_settings_defaults(command: click.Command):
    assert Settings(**settings_of(command)) == Settings()


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "TRAIN_MODEL": "m",
        "TRAIN_THEN": "eval,quantize",
        "TRAIN_SET": "a=1 'b=2 3'",
        "TRAIN_DRY_RUN": "true",
        "TRAIN_LR": "0.5",
    }.items():
        monkeypatch.setenv(name, value)
    given = Settings(**parsed("--lr", "0.1"))
    assert (given.model, given.then, given.overrides) == (
        "m",
        ("eval", "quantize"),
        ("a=1", "b=2 3"),
    )
    assert given.dry_run
    assert given.lr == 0.1, "the option wins over the variable"


@pytest.mark.parametrize("value", ["false", "0", "no"])
def test_a_false_flag_is_false(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("TRAIN_DRY_RUN", value)
    assert not parsed()["dry_run"]


def test_as_dict_is_json_and_says_nothing_of_other_objectives():
    found = json.loads(json.dumps(Settings(objective="dpo").as_dict()))
    assert found["model"] == "embedded"
    assert found["beta"] == 0.1
    assert "alpha" not in found
    assert "beta" not in Settings().as_dict()
