"""The commands that talk to Azure; each is a target of the Makefile."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from entrypoint.parameters import POSITIVE
from scripts.aml import check, deployment, endpoints, models, runs, serving
from scripts.aml.job import document
from scripts.aml.making import ARGS, JOB_CONTEXT, checked, make_job, name_option
from scripts.aml.options import settings_options
from scripts.aml.settings import AmlSettings

job_option = click.option("--job", metavar="NAME", help="Another job than the last one.")


@click.command()
@settings_options
def env(settings: AmlSettings) -> None:
    """Create the environment, from this folder or a pushed image; unchanged, it stays."""
    from scripts.aml import assets, workspace

    with workspace.connected(settings) as ml:
        name, is_new = assets.environment(ml, settings)
    click.echo(f"environment {name}: {'created' if is_new else 'is there'}")


@click.command()
@settings_options
@click.option("--name", default="rows", show_default=True, help="Name of the data asset.")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
def data(settings: AmlSettings, name: str, path: Path) -> None:
    """Upload rows, as `train prepare` makes them, as a data asset; unchanged, they stay."""
    from scripts.aml import assets, workspace

    with workspace.connected(settings) as ml:
        reference, is_new = assets.data(ml, path, name)
    click.echo(f"{reference}: {'uploaded' if is_new else 'is there'}")


@click.command()
@settings_options
def compute(settings: AmlSettings) -> None:
    """Create the cluster if it is not there."""
    from scripts.aml import assets, workspace

    with workspace.connected(settings) as ml:
        is_new = assets.compute(ml, settings)
    click.echo(f"cluster {settings.compute}: {'created' if is_new else 'is there'}")


@click.command(context_settings=JOB_CONTEXT)
@settings_options
@name_option
@click.option("--dry-run", is_flag=True, help="Print the job's YAML and send nothing.")
@ARGS
def submit(settings: AmlSettings, name: str | None, dry_run: bool, args: Any) -> None:
    """Send a `train` command as a job, after all that `validate` checks."""
    from scripts.aml import workspace

    if dry_run:
        click.echo(checked(make_job(settings, args, name), Path()), nl=False)
        return
    make_job(settings, args, name)
    with workspace.connected(settings) as ml:
        job = make_job(settings, args, name, workspace.asked(ml, settings))
        checked(job, Path())
        sent, page = runs.submit(ml, document(job), job.run)
    click.echo(f"job {sent}: {page}")


@click.command()
@settings_options
@job_option
def logs(settings: AmlSettings, job: str | None) -> None:
    """Follow a job's output to its end. Exit code 7: it failed; 143: it was cancelled."""
    from scripts.aml import workspace

    with workspace.connected(remembered(settings)) as ml:
        runs.follow(ml, job or runs.last().job, sys.stdout)


@click.command()
@settings_options
@job_option
def cancel(settings: AmlSettings, job: str | None) -> None:
    """End a job; its run folder keeps the checkpoints."""
    from scripts.aml import workspace

    with workspace.connected(remembered(settings)) as ml:
        name = job or runs.last().job
        click.echo(f"job {name}: {runs.cancel(ml, name)}")


@click.command()
@settings_options
def resume(settings: AmlSettings) -> None:
    """Start the last job again: it goes on from the newest checkpoint of its run folder."""
    from scripts.aml import workspace

    with workspace.connected(remembered(settings)) as ml:
        name, page = runs.resume(ml, runs.last())
    click.echo(f"job {name}: {page}")


@click.command()
@settings_options
@job_option
@click.option("--name", help="Name of the model.  [default: the run's]")
@click.option(
    "--part", default=models.FINAL, show_default=True, help="Or quantized/8da4w, the copy alone."
)
@click.option("--update", is_flag=True, help="Make a new version though the run has one.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(check.MODEL_TYPES),
    default="custom_model",
    show_default=True,
    help="Type of the model.",
)
def register(
    settings: AmlSettings, job: str | None, name: str | None, part: str, update: bool, kind: str
) -> None:
    """Register the model of a job, once; with its scores, versions and hashes."""
    from scripts.aml import workspace

    with workspace.connected(remembered(settings)) as ml:
        job = job or runs.last().job
        model, is_new = models.register(
            ml, job, name or job_model(job), part, update=update, kind=kind
        )
    click.echo(f"model {model}: {'registered' if is_new else 'is there'}")


@click.command()
@settings_options
@job_option
@click.option("--name", help="Name of the model.  [default: the last run's]")
@click.option("--version", help="[default: the newest]")
@click.option("--run", "whole", is_flag=True, help="The run folder instead: report, scores, logs.")
@click.option("--checkpoints", is_flag=True, help="With --run: its checkpoints too.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="A folder that does not exist yet.  [default: outputs/NAME-VERSION, or outputs/JOB-run]",
)
def download(
    settings: AmlSettings,
    job: str | None,
    name: str | None,
    version: str | None,
    whole: bool,
    checkpoints: bool,
    output: Path | None,
) -> None:
    """Download a registered model, into a folder that transformers loads; or a job's run folder."""
    from scripts.aml import workspace

    with workspace.connected(remembered(settings)) as ml:
        job = job or (runs.last().job if whole or not name else "")
        if whole:
            folder = output or Path(f"outputs/{job}-run")
            count = models.download_run(ml, job, folder, with_checkpoints=checkpoints)
            click.echo(f"run of {job}: {folder}, {count} files")
            return
        name = name or job_model(job)
        version = version or str(models.newest(ml, name).version)
        folder = models.download(ml, name, version, output or Path(f"outputs/{name}-{version}"))
    click.echo(f"model {name}:{version}: {folder}")


@click.command()
@settings_options
@click.option("--model", help="NAME or NAME:VERSION.  [default: the last run's, the newest]")
@click.option("--endpoint", help="Name of the endpoint.  [default: the model's]")
@click.option("--deployment", "name", default="blue", show_default=True, help="Its name there.")
@click.option("--instances", type=POSITIVE, default=1, show_default=True, help="Machines of it.")
@click.option(
    "--auth",
    type=click.Choice(endpoints.AUTH_MODES),
    default="aad_token",
    show_default=True,
    help="How callers sign in: as elsewhere on Azure, or with a key of the endpoint.",
)
@click.option("--dry-run", is_flag=True, help="Print the deployment's YAML and send nothing.")
@click.option("--delete", is_flag=True, help="Delete the endpoint, which costs money until then.")
@click.option(
    "--local",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Serve this model on this machine instead, with the same server and script.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=serving.DEFAULT_PORT,
    show_default=True,
    help="With --local.",
)
def deploy(
    settings: AmlSettings,
    model: str | None,
    endpoint: str | None,
    dry_run: bool,
    delete: bool,
    local: Path | None,
    port: int,
    **asked: Any,
) -> None:
    """Deploy a registered model to a managed online endpoint.

    Its machines are of --size. The environment has the image's inference parts: it is made if it is
    not there. All requests go to the new deployment.
    """
    from scripts.aml import workspace

    if local:
        serving.serve(local, port, os.environ)
        return
    settings = remembered(settings)
    model = model or job_model(runs.last().job)
    target = endpoint or deployment.endpoint_name(model.partition(":")[0])
    if dry_run:
        made = endpoints.planned(settings, model, target, asked)
        click.echo(endpoints.checked(made, Path()), nl=False)
        return
    if delete:
        with workspace.connected(settings) as ml:
            endpoints.delete(ml, target)
        click.echo(f"endpoint {target}: deleted")
        return
    # what is wrong is told before anything is sent
    endpoints.checked(endpoints.planned(settings, model, target, asked), Path())
    with workspace.connected(settings) as ml:
        address = endpoints.deploy(ml, settings, model, target, asked)
    click.echo(f"endpoint {target}: {address}")


def job_model(job: str) -> str:
    """What a job's model is called when nothing else is said: as its run."""
    record = runs.read_record()
    return record.run if record and record.job == job else job


def remembered(settings: AmlSettings) -> AmlSettings:
    """Settings whose workspace is the last job's where none is named."""
    from dataclasses import replace

    record = runs.read_record()
    if record is None or settings.workspace:
        return settings
    return replace(
        settings,
        subscription=record.subscription,
        resource_group=record.resource_group,
        workspace=record.workspace,
    )


COMMANDS = (env, data, compute, submit, logs, cancel, resume, register, download, deploy)
