"""A rehearsal of a job: the very document that would be sent, run on this machine."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from entrypoint.errors import Interrupted, SettingsError, TrainingError
from entrypoint.files import write_text
from entrypoint.secrets import SECRET_NAME, Redactor
from entrypoint.topology import JOB_VARIABLES
from entrypoint.zero_first import free_port
from scripts.aml.arguments import FINE_TUNING
from scripts.aml.blobs import PATH as DATASTORE
from scripts.aml.containers import Engine
from scripts.aml.job import Job, as_yaml
from scripts.aml.machines import PATIENCE, Nodes, Work, require_mounts
from scripts.aml.settings import AmlSettings
from scripts.aml.vault import SECRETS, WORKSPACE

FOLDER = Path(".aml/rehearsals")
METRICS = "logs/metrics.jsonl"
FIRST_LOG = "std_log_process_00.txt"
POLL_SECONDS = 0.2
OWN = re.compile(r"PATH|TRAIN_.*")
"""Variables of this machine that a job would not have; its command has TRAIN_* as options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The options of a rehearsal."""

    inputs: Mapping[str, Path]
    """What stands for assets, by the name of the input."""
    kill_at: int | None
    """The step at which all machines are taken away, once."""


def check(job: Job, asked: Asked) -> None:
    """Refuse what cannot be rehearsed.

    Raises:
        SettingsError: an input that is not here, an installation into this environment, or a step
            that does not come.
    """
    settings, command = job.settings, job.command
    for name, path in command.inputs.items():
        if path.startswith("azureml:") and name not in asked.inputs:
            raise SettingsError(
                f"the input {name} is {path}, which is not on this machine",
                where=f"--{name}",
                hint=f"name what stands for it here: --input {name}=PATH",
            )
    unknown = sorted(set(asked.inputs) - set(command.inputs))
    if unknown:
        raise SettingsError(f"the job has no input {unknown[0]}", where="--input")
    if settings.install and not settings.image:
        raise SettingsError(
            "the job would install Tunecask into this environment",
            where="--install or AML_INSTALL",
            hint="name the image of the curated environment: --image, with Docker",
        )
    if not settings.image:
        require_mounts()
    if asked.kill_at is None:
        return
    if command.name not in FINE_TUNING:
        raise SettingsError(f"train {command.name} has no steps", where="--kill-at-step")
    steps = command.settings.max_steps if command.settings else None
    if steps is not None and asked.kill_at >= steps:
        raise SettingsError(
            f"the job ends with step {steps}", where="--kill-at-step", hint="name an earlier one"
        )


def run(job: Job, made: Mapping[str, Any], asked: Asked, terminal: IO[str]) -> Path:
    """Run the job to its end, killed and started again where that is asked for.

    Args:
        made: the document, as it would be sent.

    Returns:
        The folder that stands for the job's output.

    Raises:
        TrainingError: the job has failed.
        SettingsError: a job of this name was rehearsed, or has ended before it was killed.
        Interrupted: by a signal, which the job got too.
    """
    folder = FOLDER / job.name
    if folder.exists():
        raise SettingsError(
            f"{job.name} was rehearsed already", where=folder, hint="give another --name"
        )
    output = place(folder, made["outputs"]["run"]["path"])
    output.mkdir(parents=True)
    write_text(folder / "job.yml", as_yaml(made))
    work = work_of(job, made, asked, folder)
    engine = None
    if job.settings.image:
        arguments = tuple((job.settings.docker_args or "").split())
        engine = Engine(
            image=job.settings.image,
            job=job.name,
            shm_size=job.settings.shm_size,
            arguments=arguments,
        )
    kill_at = asked.kill_at
    logs, went_well = attempt(1, work, folder, engine, output / METRICS, kill_at, terminal)
    if went_well is None:
        terminal.write(f"== killed at step {kill_at}; started again\n")
        kill_at = None
        logs, went_well = attempt(2, work, folder, engine, output / METRICS, None, terminal)
    if not went_well:
        raise TrainingError(
            "the job would have failed", where=logs, hint="its logs say why, one a process"
        )
    if kill_at:
        raise SettingsError(
            f"the job has ended before step {kill_at}", where="--kill-at-step", hint="lower it"
        )
    return output


def attempt(
    number: int,
    work: Work,
    folder: Path,
    engine: Engine | None,
    metrics: Path,
    kill_at: int | None,
    terminal: IO[str],
) -> tuple[Path, bool | None]:
    """Start the job once. Returns its logs, and what `follow` says of it."""
    nodes = Nodes(work=work, folder=folder / f"attempt-{number}", engine=engine)
    with running(nodes):
        return nodes.logs, follow(nodes, metrics, kill_at, terminal)


def work_of(job: Job, made: Mapping[str, Any], asked: Asked, folder: Path) -> Work:
    """What the machines are given."""
    here = {**{name: Path(path) for name, path in job.command.inputs.items()}, **asked.inputs}
    base = {} if job.settings.image else own(os.environ)
    if job.settings.fetches_tokens:
        # the vault is asked for those that are not set
        base |= {name: os.environ[name] for name in SECRETS if os.environ.get(name)}
    return Work(
        command=made["command"],
        inputs={name: here[name].expanduser().absolute() for name in made.get("inputs", {})},
        outputs={
            name: place(folder, output["path"]).absolute()
            for name, output in made["outputs"].items()
        },
        code=Path(made["code"]).absolute() if "code" in made else None,
        environment={
            **base,
            **made.get("environment_variables", {}),
            "AZUREML_RUN_ID": job.name,
            "AZUREML_ROOT_RUN_ID": job.name,
            "AZUREML_EXPERIMENT_NAME": made["experiment_name"],
            **arm(job.settings),
        },
        nodes=made["resources"]["instance_count"],
        processes=made["distribution"]["process_count_per_instance"],
        master_port=free_port(),
    )


def arm(settings: AmlSettings) -> dict[str, str]:
    """Where a job is told that it runs."""
    place = (settings.subscription, settings.resource_group, settings.workspace)
    named = zip(WORKSPACE, place, strict=True)
    return {f"AZUREML_ARM_{name}": value for name, value in named if value}


def own(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of this machine, without those that a job would not have: of other processes,
    of `train`, and secrets."""
    return {
        name: value
        for name, value in environ.items()
        if not (
            OWN.fullmatch(name) or JOB_VARIABLES.fullmatch(name) or SECRET_NAME.search(name)
        ) or name == "TRAIN_CACHE"
    }  # fmt: skip


def place(folder: Path, uri: str) -> Path:
    """The folder that stands for a place in a datastore."""
    found = DATASTORE.match(uri)
    assert found, uri
    return folder / "datastores" / found[1] / found[2].strip("/")


@contextmanager
def running(nodes: Nodes) -> Iterator[None]:
    """Start the nodes; a signal that ends this process goes to them first.

    Raises:
        Interrupted: a signal came, and the nodes have ended.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(number, "the rehearsal was interrupted")

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    if nodes.engine:
        nodes.engine.open()
    try:
        nodes.start()
        yield
    except Interrupted as stop:
        nodes.signal(stop.exit_code - 128)
        until = time.monotonic() + PATIENCE
        while not nodes.ended() and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        raise
    finally:
        nodes.kill()
        if nodes.engine:
            nodes.engine.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(nodes: Nodes, metrics: Path, kill_at: int | None, terminal: IO[str]) -> bool | None:
    """Show what the first process prints, as Azure ML does.

    Returns:
        Whether the job has ended well; None when it was killed.
    """
    redact = Redactor(os.environ)
    log = nodes.logs / FIRST_LOG
    shown = 0
    while True:
        has_ended = nodes.ended()
        text = log.read_bytes()[shown:] if log.exists() else b""
        whole = text if has_ended else text[: text.rfind(b"\n") + 1]
        shown += len(whole)
        terminal.write(redact(whole.decode("utf-8", "replace")))
        terminal.flush()
        if has_ended:
            return nodes.wait()
        if kill_at and newest_step(metrics) >= kill_at:
            nodes.kill()
            return None
        time.sleep(POLL_SECONDS)


def newest_step(metrics: Path) -> int:
    """The last step that was logged; 0 for none."""
    if not metrics.exists():
        return 0
    whole, _, _ = metrics.read_text("utf-8").rpartition("\n")
    last = whole.rpartition("\n")[2]
    return int(json.loads(last)["step"]) if last else 0
