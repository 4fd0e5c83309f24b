"""The job as Azure ML's YAML has it. Pure: the same settings and command, the same document."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from entrypoint.errors import SettingsError
from entrypoint.machines import Size
from scripts.aml.arguments import PLACEHOLDER, TrainCommand
from scripts.aml.settings import SERVERLESS, AmlSettings, split_tags
from scripts.aml.vault import CONNECTIONS, VAULT

SCHEMA = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
CODE = Path(".aml/code")
"""Where the code snapshot is put together."""
PASSED = ("HF_ENDPOINT", "WANDB_PROJECT")
"""Variables that a job takes over, of those that compose.yaml does: it has a network and its own
MLflow."""
ALONE = ("env", "-u", "RANK", "-u", "LOCAL_RANK", "-u", "LOCAL_WORLD_SIZE")
"""Azure ML numbers processes even where it starts one on each node, and `train` would take that
one for the process of a single GPU."""
PIP = "python -m pip install -q --disable-pip-version-check"
INSTALL = (
    "(flock 9; python scripts/base_torch.py pyproject.toml >/dev/null"
    f" && {PIP} -c requirements.lock setuptools"
    f" && {PIP} --no-deps --no-build-isolation --use-pep517 -r requirements.lock"
    f" && {PIP} --no-deps --no-build-isolation .) 9>/tmp/install.lock"
)
"""Tunecask with the very packages of the lock, beside the torch of a curated environment; once a
machine. As `make setup` does: with dependencies, pip would compile what the lock leaves out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One submission of a run."""

    name: str
    run: str
    """The name of the first submission, which the run folder is called by."""
    settings: AmlSettings
    command: TrainCommand
    size: Size | None
    """None where the size is not given and no decision needs it."""
    passed: Mapping[str, str]
    """Variables taken over from this machine."""

    @property
    def needs_code(self) -> bool:
        """Whether anything has to be shipped beside what the image has."""
        settings = self.settings
        return bool(settings.install or settings.fetches_tokens or self.command.shipped)


def run_path(datastore: str, run: str) -> str:
    """Where the run folder is kept; the same for every submission of a run."""
    return f"azureml://datastores/{datastore}/paths/tunecask/{run}/"


def shell_line(job: Job) -> str:
    """What the job's shell runs. Azure ML puts paths in the placeholders' place."""
    argv = job.command.argv
    if job.settings.fetches_tokens:
        argv = ("python", "vault.py", *argv)
    if job.settings.start == "node":
        argv = (*ALONE, *argv)
    line = " ".join(f'"{word}"' if PLACEHOLDER.search(word) else shlex.quote(word) for word in argv)
    return f"{INSTALL} && {line}" if job.settings.install else line


def document(job: Job) -> dict[str, Any]:
    """What `az ml job create -f` takes.

    Raises:
        SettingsError: no machine, or none with GPUs where each is to have a process.
    """
    settings = job.settings
    made: dict[str, Any] = {
        "$schema": SCHEMA,
        "type": "command",
        "name": job.name,
        "display_name": job.run,
        "experiment_name": settings.experiment,
    }
    if job.needs_code:
        made["code"] = CODE.as_posix()
    made |= {
        "command": shell_line(job),
        "environment": environment_of(settings.environment),
        "compute": f"azureml:{settings.compute}" if settings.compute else None,
        "inputs": {name: input_of(name, path) for name, path in job.command.inputs.items()},
        "outputs": {
            "run": {
                "type": "uri_folder",
                "mode": "rw_mount",
                "path": run_path(settings.datastore, job.run),
            }
        },
        "resources": _resources(settings),
        "distribution": {"type": "pytorch", "process_count_per_instance": processes(job)},
        "environment_variables": _variables(job),
        "identity": None if settings.identity == "none" else {"type": _identity(settings)},
        "tags": {
            **split_tags(settings.tags),
            "tunecask.run": job.run,
            "tunecask.command": job.command.name,
        },
        "limits": {"timeout": settings.timeout * 60} if settings.timeout else None,
        "queue_settings": _queue(settings),
    }
    return {key: value for key, value in made.items() if value not in (None, {})}


def as_yaml(made: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(made), sort_keys=False, width=1000, allow_unicode=True)
    return text


def environment_of(name: str) -> str:
    """The reference of an environment: its newest version unless one is named."""
    if name.startswith("azureml:"):
        return name
    return f"azureml:{name}" if ":" in name or "@" in name else f"azureml:{name}@latest"


def input_of(option: str, path: str) -> dict[str, str]:
    """An input, mounted read-only.

    Args:
        option: the option that takes it: a named asset for a model is a model asset.
        path: a local path, an asset, or a place in a datastore.
    """
    if not path.startswith("azureml:"):
        kind = "uri_folder" if Path(path).is_dir() else "uri_file"
    elif option != "data" and not path.startswith("azureml://"):
        kind = "custom_model"
    else:
        kind = "uri_file" if Path(path).suffix else "uri_folder"
        kind = "uri_folder" if not path.startswith("azureml://") else kind
    return {"type": kind, "path": path, "mode": "ro_mount"}


def processes(job: Job) -> int:
    """How many processes Azure ML starts on each node."""
    if job.settings.start == "node":
        return 1
    if job.size is None or not job.size.gpus:
        raise SettingsError(
            "one process for each GPU needs a size that has GPUs",
            where="--start or AML_START, and --size or AML_SIZE",
            hint="name the size of the compute, or use --start node",
        )
    return job.size.gpus


def _variables(job: Job) -> dict[str, str]:
    variables = dict(job.passed)
    if job.settings.key_vault:
        variables[VAULT] = job.settings.key_vault
    elif job.settings.connections:
        variables[CONNECTIONS] = "yes"
    if job.settings.start == "gpu":
        # Azure ML does not say it
        variables["LOCAL_WORLD_SIZE"] = str(processes(job))
    return variables


def _resources(settings: AmlSettings) -> dict[str, Any]:
    resources: dict[str, Any] = {
        "instance_count": settings.nodes,
        "shm_size": settings.shm_size,
    }
    if settings.docker_args:
        resources["docker_args"] = settings.docker_args
    if settings.compute == SERVERLESS and settings.size:
        resources["instance_type"] = settings.size
    return resources


def _identity(settings: AmlSettings) -> str:
    return "managed" if settings.identity == "managed" else "user_identity"


def _queue(settings: AmlSettings) -> dict[str, str] | None:
    """Of a serverless job; a cluster has a tier of its own."""
    if settings.compute != SERVERLESS:
        return None
    tier = {"job_tier": "spot" if settings.tier == "low-priority" else "standard"}
    return tier | ({"priority": settings.priority} if settings.priority else {})
