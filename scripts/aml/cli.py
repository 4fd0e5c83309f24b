"""The command line of the Make targets aml-*; errors end with the exit codes of `train`."""

import os
import secrets as randomness
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import yaml

from entrypoint import noise
from entrypoint.errors import ExitCode, SettingsError, TrainError
from scripts.aml import arguments, check, fit, snapshot
from scripts.aml.job import CODE, PASSED, Job, as_yaml, document
from scripts.aml.options import passed, settings_options
from scripts.aml.settings import NAME, AmlSettings
from scripts.aml.sizes import documented

JOB_CONTEXT = {"ignore_unknown_options": True, "allow_interspersed_args": False}
ARGS = click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND …]")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def aml() -> None:
    """Tunecask on Azure ML.

    Settings come from flags, from variables, or from aml.yaml in the project's folder.
    """


def make_job(settings: AmlSettings, args: Sequence[str], name: str | None) -> Job:
    """The job of a `train` command.

    Raises:
        SettingsError: the name, the command or the size is none.
    """
    command = arguments.parse(args)
    run = name or f"{command.name}-{datetime.now():%Y%m%d-%H%M%S}-{randomness.token_hex(2)}"
    if not NAME.fullmatch(run):
        raise SettingsError(
            f"{run!r} is no name of a job",
            where="--name",
            hint="take letters, digits, - and _, beginning with a letter or a digit",
        )
    return Job(
        name=run,
        run=run,
        settings=settings,
        command=command,
        size=documented(settings.size) if settings.size else None,
        passed=passed(PASSED),
    )


def checked(job: Job, folder: Path) -> str:
    """The job's YAML, when nothing is wrong with it.

    Raises:
        SettingsError: names everything that is wrong.
    """
    made = document(job)
    found = [*check.problems(made, folder), *check.leaks(made, os.environ)]
    if job.size:
        found += fit.problems(job.command, job.size, job.settings.nodes, os.environ)
    if not (job.settings.environment.startswith("azureml:") or job.settings.image):
        found += check.context_problems(snapshot.ROOT, job.settings.dockerfile)
    check.require(found, "the settings of the job")
    text = as_yaml(made)
    stage_code(job, folder)
    from scripts.aml import sdk

    sdk.load(text, folder)
    return text


def stage_code(job: Job, folder: Path) -> None:
    """Put the code snapshot together, and say what is in it."""
    if not job.needs_code:
        click.echo("# code snapshot: none, the image has all", err=True)
        return
    files = snapshot.contents(job)
    snapshot.stage(files, folder / CODE)
    click.echo(f"# code snapshot, {len(files)} files in {folder / CODE}:", err=True)
    for name in files:
        click.echo(f"#   {name}", err=True)


@aml.command(context_settings=JOB_CONTEXT)
@settings_options
@click.option("--name", help="Name of the job and of its run folder.  [default: command and time]")
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
