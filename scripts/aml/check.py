"""What is wrong with a job, found without Azure: what its SDK finds, and what it does not."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from entrypoint.errors import SettingsError
from entrypoint.secrets import SECRET_NAME, is_secret
from scripts.aml.arguments import PLACEHOLDER

MEMORY = re.compile(r"[1-9]\d*[bkmg]", re.IGNORECASE)
"""A size as `docker run --shm-size` takes it."""
LARGEST_DOCKERFILE = 1_000_000
MODEL_TYPES = ("custom_model", "mlflow_model", "triton_model")
TIERS = ("spot", "basic", "standard", "premium")


def problems(made: Mapping[str, Any], folder: Path) -> list[str]:
    """What the SDK does not find, each as `field: what is wrong`.

    Args:
        made: the job as its YAML says it.
        folder: what its relative paths start from.
    """
    return [
        *_placeholders(made),
        *_compute(made),
        *_resources(made),
        *_build(made, folder),
        *_models(made),
        *secret_names(made),
    ]


def _placeholders(made: Mapping[str, Any]) -> Iterator[str]:
    for kind, name in PLACEHOLDER.findall(str(made.get("command", ""))):
        if kind not in ("inputs", "outputs"):
            yield f"command: ${{{{{kind}.{name}}}}} is neither an input nor an output"
        elif name not in (made.get(kind) or {}):
            yield f"{kind}.{name}: the command uses it and it is not declared"


def _compute(made: Mapping[str, Any]) -> Iterator[str]:
    compute = made.get("compute")
    if not compute:
        yield "compute: none is named; set --compute or AML_COMPUTE, or `serverless`"
    elif not re.fullmatch(r"(azureml:)?[a-zA-Z0-9][\w-]*", str(compute)):
        yield f"compute: {compute!r} is no name of a compute"
    serverless = str(compute).removeprefix("azureml:") == "serverless"
    queue = made.get("queue_settings") or {}
    if queue and not serverless:
        yield "queue_settings: a cluster has its own tier; they are for serverless jobs"
    if str(queue.get("job_tier", "spot")).lower() not in TIERS:
        yield f"queue_settings.job_tier: {queue['job_tier']!r} is none of {', '.join(TIERS)}"
    if serverless and not (made.get("resources") or {}).get("instance_type"):
        yield "resources.instance_type: a serverless job needs a VM size: --size or AML_SIZE"


def _resources(made: Mapping[str, Any]) -> Iterator[str]:
    resources = made.get("resources") or {}
    count = resources.get("instance_count", 1)
    if not isinstance(count, int) or count < 1:
        yield f"resources.instance_count: {count!r} is no number of nodes from 1"
    shm = resources.get("shm_size", "2g")
    if not MEMORY.fullmatch(str(shm)):
        yield f"resources.shm_size: {shm!r} is no size such as 16g"
    timeout = (made.get("limits") or {}).get("timeout", 1)
    if not isinstance(timeout, int) or timeout < 1:
        yield f"limits.timeout: {timeout!r} is no number of seconds from 1"
    processes = (made.get("distribution") or {}).get("process_count_per_instance", 1)
    if not isinstance(processes, int) or processes < 1:
        yield f"distribution.process_count_per_instance: {processes!r} is no number from 1"


def _build(made: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Of an environment that is described in the job itself."""
    environment = made.get("environment")
    if isinstance(environment, Mapping) and "build" in environment:
        build = environment["build"] or {}
        context = folder / str(build.get("path", ""))
        yield from context_problems(context, str(build.get("dockerfile_path", "Dockerfile")))


def context_problems(context: Path, dockerfile: str) -> Iterator[str]:
    """What Azure ML's image builder would refuse."""
    if not context.is_dir():
        yield f"environment.build.path: there is no folder {context}"
        return
    path = context / dockerfile
    if not path.is_file():
        yield f"environment.build.dockerfile_path: there is no file {path}"
    elif path.stat().st_size >= LARGEST_DOCKERFILE:
        yield f"environment.build.dockerfile_path: {path} has 1 MB or more, which is refused"


def _models(made: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("inputs", "outputs"):
        for name, value in (made.get(kind) or {}).items():
            type_ = value.get("type", "uri_folder") if isinstance(value, Mapping) else "string"
            if str(type_).endswith("_model") and type_ not in MODEL_TYPES:
                yield f"{kind}.{name}.type: {type_!r} is none of {', '.join(MODEL_TYPES)}"


def secret_names(made: Mapping[str, Any]) -> Iterator[str]:
    """Inputs, variables and tags are stored as plain text, for everybody in the workspace."""
    for field in ("inputs", "environment_variables", "tags"):
        for name in made.get(field) or {}:
            if SECRET_NAME.search(str(name)):
                yield f"{field}.{name}: it looks like a secret and would be stored as plain text"


def leaks(made: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Secrets of this machine whose values are in the job; the values are not told."""
    text = yaml.safe_dump(dict(made), width=1_000_000, allow_unicode=True)
    return [
        f"{name}: its value is in the job, which is stored as plain text"
        for name, value in environ.items()
        if is_secret(name, value) and value in text
    ]


def require(found: list[str], where: object, what: str = "job") -> None:
    """Refuse a job, or what else is described, that anything is wrong with.

    Raises:
        SettingsError: names all that was found.
    """
    if found:
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise SettingsError(
            "\n".join((f"the {what} has {count}:", *(f"  {problem}" for problem in found))),
            where=where,
        )
