"""The command line of the Make targets aml-*; errors end with the exit codes of `train`."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from entrypoint import noise
from entrypoint.errors import ExitCode, SettingsError, TrainError
from entrypoint.parameters import POSITIVE
from scripts.aml import check, cloud
from scripts.aml.making import ARGS, JOB_CONTEXT, checked, make_job, name_option
from scripts.aml.options import Here, settings_options
from scripts.aml.settings import AmlSettings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def aml() -> None:
    """Tunecask on Azure ML.

    Settings come from flags, from variables, or from aml.yaml in the project's folder.
    """


@aml.command(context_settings=JOB_CONTEXT)
@settings_options
@name_option
@click.option(
    "--job",
    "path",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Check this YAML of a job instead.",
)
@ARGS
def validate(settings: AmlSettings, name: str | None, path: Path | None, args: Any) -> None:
    """Check a job without a network, and print its YAML.

    It is what `az ml job create -f` takes. Everything that is wrong is named: exit code 3.
    """
    if path is None:
        click.echo(checked(make_job(settings, args, name), Path()), nl=False)
        return
    if args:
        raise click.UsageError("--job has its own command")
    made = read_job(path)
    check.require([*check.problems(made, path.parent), *check.leaks(made, os.environ)], path)
    from scripts.aml import sdk

    sdk.load(path.read_text("utf-8"), path.parent.absolute())
    click.echo(f"{path}: nothing is wrong")


@aml.command(context_settings=JOB_CONTEXT)
@settings_options
@name_option
@click.option(
    "--input",
    "inputs",
    type=Here(),
    multiple=True,
    help="What stands here for an asset, as data=FOLDER. Repeatable.",
)
@click.option(
    "--kill-at-step",
    "kill_at",
    type=POSITIVE,
    metavar="STEP",
    help="Take all machines away when that step is made, then start the job again.",
)
@ARGS
def rehearse(
    settings: AmlSettings,
    name: str | None,
    inputs: tuple[tuple[str, Path], ...],
    kill_at: int | None,
    args: Any,
) -> None:
    """Run a job on this machine, as Azure ML would run it.

    Its nodes are containers of --image, or else processes in this virtual environment. They get
    Azure ML's variables, and inputs mounted read-only.
    """
    from scripts.aml import rehearsal

    job = make_job(settings, args, name)
    asked = rehearsal.Asked(inputs=dict(inputs), kill_at=kill_at)
    rehearsal.check(job, asked)
    made = yaml.safe_load(checked(job, Path()))
    output = rehearsal.run(job, made, asked, sys.stdout)
    click.echo(f"rehearsal {job.name}: Completed; its output: {output}")


def read_job(path: Path) -> dict[str, Any]:
    """A job's YAML.

    Raises:
        SettingsError: it is none.
    """
    try:
        made = yaml.safe_load(path.read_text("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the job cannot be read: {error}", where=path) from error
    if not isinstance(made, dict):
        raise SettingsError("the job is no list of `key: value`", where=path)
    return made


for command in cloud.COMMANDS:
    aml.add_command(command)


def main(given: Sequence[str] | None = None) -> None:
    """Run a command and exit with one of errors.ExitCode."""
    sys.exit(run(sys.argv[1:] if given is None else given))


def run(given: Sequence[str]) -> int:
    noise.silence()
    try:
        aml.main(args=list(given), prog_name="aml", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.SIGINT
    except TrainError as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is gets a code
        if os.environ.get("TRAIN_DEBUG"):
            traceback.print_exc()
        click.echo(f"Error: {type(error).__name__}: {error}", err=True)
        return ExitCode.BUG
    return ExitCode.OK
