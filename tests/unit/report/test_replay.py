"""entrypoint.report.replay: the command that runs a run again."""

import json
import shlex
from pathlib import Path

import click

from entrypoint.cli import train as group
from entrypoint.commands.sft import sft
from entrypoint.report.replay import command
from entrypoint.settings import Settings

SETTINGS = Settings(
    model="acme/tiny@v1",
    data="my rows.jsonl",
    lr=2e-4,
    max_steps=7,
    overrides=("optimizer.weight_decay=0", "+optimizer.eps=1e-6"),
    then=("quantize", "eval"),
    gates=("exact_match >= base",),
    output=Path("outputs/x"),
    lora_targets=("attention", "mlp"),
    quantize_methods=("8da4w", "int8-dynamic"),
    preset="balanced",
    explicit=("lr", "max_steps"),
    fit_check=False,
)


def test_the_command_gives_the_same_settings_but_for_the_output():
    written = json.loads(json.dumps(SETTINGS.as_dict()))
    train, objective, *arguments = shlex.split(command(written, SETTINGS.seed))
    assert (train, objective) == ("train", "sft")
    # click keeps the help option of a command's first context, which the parent decides
    parent = click.Context(group, **group.context_settings)
    context = sft.make_context("sft", arguments, parent=parent)
    assert context.params.pop("as_json") is False
    again = Settings(objective="sft", **context.params)
    told = {"output": None, "preset": None, "explicit": ()}
    assert again == Settings(**{**SETTINGS.as_dict(), **told})


def test_defaults_are_left_out():
    assert command(Settings().as_dict(), 42) == "train sft --seed 42"
