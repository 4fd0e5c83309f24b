"""A deployment of a model at an endpoint, as Azure ML's YAML has it, and what is wrong with it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.errors import SettingsError
from scripts.aml import check
from scripts.aml.settings import AmlSettings, split_tags
from scripts.aml.sizes import documented

SCHEMA = "https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json"
CODE = Path(".aml/serving")
"""Where the scoring script is put."""
SCRIPT = "score.py"
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]")
"""Of an endpoint and of a deployment: 3 to 32 characters."""
MODEL = re.compile(r"azureml:[\w.-]+(:[\w.-]+|@latest)|azureml://.+")
LONGEST_REQUEST = 180_000
"""Milliseconds: the limit of managed online endpoints."""
PATIENCE = {"initial_delay": 60, "period": 10, "timeout": 10, "failure_threshold": 120}
"""Seconds, and attempts: twenty minutes for the model to be loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """One model at one endpoint."""

    endpoint: str
    name: str
    model: str
    """azureml:NAME:VERSION."""
    instances: int
    settings: AmlSettings


def environment_name(settings: AmlSettings) -> str:
    """The environment that serves, beside the one that trains."""
    name = settings.environment
    return name if set(name) & set(":@") else f"{name}-serving"


def endpoint_name(model: str) -> str:
    """A name for the endpoint of a model."""
    name = re.sub(r"[^a-zA-Z0-9]+", "-", model).strip("-")[:32].strip("-")
    return name if name[:1].isalpha() else f"m-{name}"[:32].strip("-")


def document(deployment: Deployment, environment: str) -> dict[str, Any]:
    """What `az ml online-deployment create -f` takes.

    Args:
        environment: the reference of one that has the inference parts.
    """
    made = {
        "$schema": SCHEMA,
        "name": deployment.name,
        "endpoint_name": deployment.endpoint,
        "model": deployment.model,
        "code_configuration": {"code": CODE.as_posix(), "scoring_script": SCRIPT},
        "environment": environment,
        "instance_type": deployment.settings.size,
        "instance_count": deployment.instances,
        "request_settings": {
            "request_timeout_ms": LONGEST_REQUEST,
            "max_concurrent_requests_per_instance": 1,
        },
        "liveness_probe": dict(PATIENCE),
        "readiness_probe": dict(PATIENCE),
        "tags": split_tags(deployment.settings.tags),
    }
    return {key: value for key, value in made.items() if value not in (None, {})}


def problems(made: Mapping[str, Any], folder: Path) -> list[str]:
    """What is wrong, each as `field: what`; without a network.

    Args:
        made: the deployment as its YAML says it.
        folder: what its relative paths start from.
    """
    return [*_names(made), *_model(made), *_size(made), *_script(made, folder), *_rest(made)]


def _names(made: Mapping[str, Any]) -> Iterator[str]:
    for field in ("endpoint_name", "name"):
        if not NAME.fullmatch(str(made.get(field, ""))):
            yield (
                f"{field}: {made.get(field)!r} is no name: 3 to 32 letters, digits and -, "
                "beginning with a letter"
            )


def _model(made: Mapping[str, Any]) -> Iterator[str]:
    model = made.get("model")
    if not model:
        yield "model: none is named; set --model, or register one"
    elif isinstance(model, str) and not MODEL.fullmatch(model):
        yield f"model: {model!r} is no azureml:NAME:VERSION"


def _size(made: Mapping[str, Any]) -> Iterator[str]:
    size = made.get("instance_type")
    if not size:
        yield "instance_type: none is named; set --size or AML_SIZE"
    else:
        try:
            documented(str(size))
        except SettingsError as error:
            yield f"instance_type: {error.what}"
    count = made.get("instance_count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        yield f"instance_count: {count!r} is no number of machines from 1"


def _script(made: Mapping[str, Any], folder: Path) -> Iterator[str]:
    code = made.get("code_configuration") or {}
    path = folder / str(code.get("code", "")) / str(code.get("scoring_script", ""))
    if not code.get("scoring_script"):
        yield "code_configuration.scoring_script: none is named"
    elif not path.is_file():
        yield f"code_configuration.scoring_script: there is no file {path}"
    elif missing := [
        name
        for name in ("init", "run")
        if not re.search(rf"^def {name}\(", path.read_text("utf-8"), re.MULTILINE)
    ]:
        yield f"code_configuration.scoring_script: {path} has no {missing[0]}()"


def _rest(made: Mapping[str, Any]) -> Iterator[str]:
    if not made.get("environment"):
        yield "environment: none is named"
    wait = (made.get("request_settings") or {}).get("request_timeout_ms", 5000)
    if not isinstance(wait, int) or not 1 <= wait <= LONGEST_REQUEST:
        yield f"request_settings.request_timeout_ms: {wait!r} is not from 1 to {LONGEST_REQUEST}"
    yield from check.secret_names(made)
