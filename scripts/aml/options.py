"""Options of the commands: every setting is a flag, a variable and a key of aml.yaml."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from entrypoint.errors import SettingsError
from entrypoint.parameters import POSITIVE
from scripts.aml.settings import (
    FILE,
    AmlSettings,
    Identity,
    Priority,
    Start,
    Tier,
    names,
    read_file,
    variable,
)

F = TypeVar("F", bound=Callable[..., Any])

TYPES: Mapping[str, Any] = {
    "tier": click.Choice(get_args(Tier)),
    "priority": click.Choice(get_args(Priority)),
    "nodes": POSITIVE,
    "start": click.Choice(get_args(Start)),
    "identity": click.Choice(get_args(Identity)),
    "install": click.BOOL,
    "connections": click.BOOL,
    "timeout": POSITIVE,
}
HELP: Mapping[str, str] = {
    "subscription": "Azure subscription of the workspace.",
    "resource_group": "Its resource group.",
    "workspace": "The workspace of Azure ML.",
    "compute": "A cluster, or `serverless`.",
    "size": "VM size of the machines, as Standard_NC24ads_A100_v4.",
    "tier": "Low-priority machines are cheaper and can be taken away.",
    "priority": "Of a serverless job.",
    "nodes": "How many machines train together.",
    "start": "Start `train` once on each node, or once for each GPU.",
    "environment": "NAME, NAME:VERSION or azureml://registries/….",
    "install": "The environment is a curated one: install the locked dependencies first.",
    "image": "A pushed image that the environment is made of, instead of a build.",
    "dockerfile": "What the environment is built from.",
    "experiment": "What the job's page is filed under.",
    "datastore": "Where run folders are kept.",
    "shm_size": "Shared memory of the container.",
    "docker_args": "More arguments of `docker run`.",
    "identity": "Whose rights the job has: its compute's, the user's, or nobody's.",
    "key_vault": "Address of the vault that the job reads HF-TOKEN and WANDB-API-KEY from.",
    "connections": "The job reads them from connections HF-TOKEN and WANDB-API-KEY instead.",
    "timeout": "Minutes after which the job is ended.",
    "tags": "KEY=VALUE of the job. Repeatable; a variable has several, with commas.",
}


class Tags(click.ParamType[str, Any]):
    """KEY=VALUE; a variable holds several, with commas."""

    name = "key=value"

    def split_envvar_value(self, rv: str) -> list[str]:
        return [tag.strip() for tag in rv.split(",") if tag.strip()]


class Here(click.ParamType[tuple[str, Path], Any]):
    """NAME=PATH, of something that is there."""

    name = "name=path"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        name, _, path = str(value).partition("=")
        if not name or not Path(path).expanduser().exists():
            self.fail(f"{value!r} is not NAME=PATH of something that is there", param, ctx)
        return name, Path(path).expanduser()


def settings_options(command: F) -> F:
    """The options of AmlSettings; the command gets them as one `settings`."""

    @functools.wraps(command)
    def collected(**given: Any) -> Any:
        chosen = {name: given.pop(name) for name in names()}
        given.pop("file")
        return command(settings=AmlSettings(**chosen), **given)

    fields = AmlSettings.__dataclass_fields__
    made: Any = collected
    for name in reversed(names()):
        default = fields[name].default
        several = name == "tags"
        made = click.option(
            "--tag" if several else f"--{name.replace('_', '-')}",
            name,
            envvar=variable(name),
            show_envvar=True,
            type=Tags() if several else TYPES.get(name, click.STRING),
            default=default or None if not several else (),
            show_default=bool(default),
            multiple=several,
            is_flag=TYPES.get(name) is click.BOOL,
            help=HELP[name],
        )(made)
    with_file: F = click.option(
        "--file",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        envvar="AML_FILE",
        show_envvar=True,
        is_eager=True,
        callback=_defaults,
        help=f"Settings as YAML.  [default: {FILE}, if it is there]",
    )(made)
    return with_file


def _defaults(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Take the file's values where neither a flag nor a variable says otherwise."""
    found = path or (FILE if FILE.is_file() else None)
    if found:
        given = read_file(found)
        for parameter in context.command.params:
            if parameter.name in given:
                _check_value(found, parameter, given[parameter.name])
        context.default_map = {**(context.default_map or {}), **given}
    return found


def _check_value(path: Path, parameter: click.Parameter, value: Any) -> None:
    """A value of the wrong kind is named by its key here, where click would name the option."""
    expected = isinstance(parameter.type, click.types.BoolParamType)
    whole = isinstance(parameter.type, click.IntRange)
    try:
        if parameter.multiple:
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise click.BadParameter("it is no mapping of names to texts")
        elif isinstance(value, bool) is not expected or isinstance(value, int) is not (
            whole or expected
        ):
            raise click.BadParameter(f"{value!r} is of the wrong type")
        else:
            parameter.type.convert(value, parameter, None)
    except click.BadParameter as error:
        raise SettingsError(f"{parameter.name}: {error.message}", where=path) from error


def passed(wanted: tuple[str, ...]) -> dict[str, str]:
    """Those of the variables that are set here."""
    return {name: os.environ[name] for name in wanted if os.environ.get(name)}
