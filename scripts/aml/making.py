"""From settings and arguments to a job that nothing is wrong with."""

import os
import secrets as randomness
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from entrypoint.errors import SettingsError
from entrypoint.machines import Size
from scripts.aml import arguments, check, fit, snapshot
from scripts.aml.job import CODE, PASSED, Job, as_yaml, document
from scripts.aml.options import passed
from scripts.aml.settings import NAME, AmlSettings
from scripts.aml.sizes import documented

JOB_CONTEXT = {"ignore_unknown_options": True, "allow_interspersed_args": False}
ARGS = click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND …]")
name_option = click.option(
    "--name", help="Name of the job and of its run folder.  [default: command and time]"
)


def make_job(
    settings: AmlSettings, args: Sequence[str], name: str | None, size: Size | None = None
) -> Job:
    """The job of a `train` command.

    Args:
        size: what Azure says of the machines; without it the documented table says it.

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
    if settings.key_vault and settings.connections:
        raise SettingsError(
            "tokens come from a key vault or from connections, not from both",
            where="--key-vault and --connections",
        )
    return Job(
        name=run,
        run=run,
        settings=settings,
        command=command,
        size=size or (documented(settings.size) if settings.size else None),
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
