"""The `train` command of a job: parsed by the very command line that compose runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource

from entrypoint.cli import train
from entrypoint.errors import SettingsError
from entrypoint.settings import Settings

COMMANDS = {
    "sft": "${{outputs.run}}",
    "dpo": "${{outputs.run}}",
    "kd": "${{outputs.run}}",
    "eval": "${{outputs.run}}/eval/result.json",
    "quantize": "${{outputs.run}}/quantized/{method}",
}
"""What a job may run, and its --output; `{method}` is the method that is asked for."""
FINE_TUNING: tuple[Literal["sft", "dpo", "kd"], ...] = ("sft", "dpo", "kd")
INPUTS = ("model", "base", "teacher", "data", "resume")
"""Options whose local path or asset becomes an input of the job."""
SHIPPED = ("recipe", "tasks_folder")
"""Options whose local path goes into the code snapshot."""
SHIPPED_FOLDER = "files"
ASSET = re.compile(r"azureml:.+")
PLACEHOLDER = re.compile(r"\$\{\{\s*(\w+)\.(\w+)\s*\}\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Argument:
    """One option as given."""

    name: str
    """As the command's function calls it: max_steps."""
    option: str
    value: str | None
    """None for a flag."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCommand:
    """A command that `train` takes, with what its job needs to have."""

    name: str
    arguments: tuple[Argument, ...]
    settings: Settings | None
    """Of a command that fine-tunes; as on this machine."""
    inputs: dict[str, str]
    """Name of an input -> asset or local path."""
    shipped: dict[str, Path]
    """Path in the code snapshot -> local path."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The command, with placeholders for the job's inputs and outputs."""
        words = [
            word
            for each in self.arguments
            for word in (each.option, each.value)
            if word is not None
        ]
        return ("train", self.name, *words)


def parse(arguments: Sequence[str]) -> TrainCommand:
    """The command of a job, checked as `train` checks it.

    Options may come from TRAIN_* variables too; a job gets them as options.

    Raises:
        click.UsageError: an option or value that the command does not take.
        SettingsError: a command that is none of a job, or settings that no run can be made of.
    """
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        raise SettingsError(
            f"{name or 'nothing'} is no command of a job",
            where="ARGS, behind the options of the job",
            hint=f"begin with one of {', '.join(COMMANDS)}, as `train` takes it",
        )
    # click keeps the help option of a command's first context, which the parent decides
    parent = click.Context(train, info_name="train", **train.context_settings)
    context = train.commands[name].make_context(name, list(arguments[1:]), parent=parent)
    given = tuple(_given(context))
    if any(each.name == "output" for each in given):
        raise SettingsError(
            "the run folder of a job is its output",
            where="--output or TRAIN_OUTPUT",
            hint="leave it out; `make aml-download` gets it",
        )
    settings = _settings(name, context.params, tuple(each.name for each in given))
    return _with_output(_with_inputs(_with_files(name, given, settings)))


def _given(context: click.Context) -> list[Argument]:
    found = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source not in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            continue
        assert isinstance(parameter, click.Option)
        name = str(parameter.name)
        value = context.params[name]
        option = max(parameter.opts, key=len)
        if parameter.is_flag:
            words: list[str | None] = [None] if value else []
        elif parameter.multiple:
            words = [str(one) for one in value]
        else:
            words = [",".join(value) if isinstance(value, tuple) else str(value)]
        found += [Argument(name=name, option=option, value=word) for word in words]
    return found


def _settings(name: str, params: dict[str, Any], explicit: tuple[str, ...]) -> Settings | None:
    if name not in FINE_TUNING:
        return None
    known = {key: value for key, value in params.items() if key in Settings.__dataclass_fields__}
    return Settings(objective=name, explicit=explicit, **{**known, "output": Path("outputs")})


def _with_files(name: str, given: tuple[Argument, ...], settings: Settings | None) -> TrainCommand:
    shipped = {}
    arguments = []
    for each in given:
        if each.name in SHIPPED:
            path = Path(each.value or "")
            if not path.exists():
                raise SettingsError(f"{path} does not exist", where=each.option)
            place = f"{SHIPPED_FOLDER}/{path.resolve().name}"
            shipped[place] = path.resolve()
            each = replace(each, value=place)
        arguments.append(each)
    return TrainCommand(
        name=name, arguments=tuple(arguments), settings=settings, inputs={}, shipped=shipped
    )


def _with_inputs(command: TrainCommand) -> TrainCommand:
    inputs = {}
    arguments = []
    for each in command.arguments:
        value = each.value or ""
        if each.name in INPUTS and (ASSET.fullmatch(value) or Path(value).expanduser().exists()):
            inputs[each.name] = (
                value if ASSET.fullmatch(value) else str(Path(value).expanduser().resolve())
            )
            each = replace(each, value=f"${{{{inputs.{each.name}}}}}")
        elif each.name == "data" and (value == "-" or set(value) & set("*?[")):
            raise SettingsError(
                f"{value} is not there where the job runs",
                where="--data or TRAIN_DATA",
                hint="name a file, a folder, a data asset (azureml:NAME@latest) or a data set of "
                "the hub",
            )
        elif each.name in INPUTS and value.startswith(("/", ".", "~")):
            raise SettingsError(f"{value} does not exist", where=each.option)
        arguments.append(each)
    return replace(command, arguments=tuple(arguments), inputs=inputs)


def _with_output(command: TrainCommand) -> TrainCommand:
    method = next((each.value for each in command.arguments if each.name == "method"), "8da4w")
    output = COMMANDS[command.name].replace("{method}", method or "")
    added = [Argument(name="output", option="--output", value=output)]
    resumes = any(each.name == "resume" for each in command.arguments)
    if command.name in FINE_TUNING and not resumes:
        # so that a job which is started again after its machine was taken away goes on
        added.append(Argument(name="resume", option="--resume", value="auto"))
    return replace(command, arguments=(*command.arguments, *added))
