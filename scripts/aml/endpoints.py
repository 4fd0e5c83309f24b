"""Managed online endpoints: a registered model that answers requests."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from entrypoint.errors import SettingsError
from scripts.aml import assets, check, models, sdk, serving, snapshot
from scripts.aml.deployment import CODE, SCRIPT, Deployment, document, environment_name, problems
from scripts.aml.job import as_yaml, environment_of
from scripts.aml.settings import AmlSettings

AUTH_MODES = ("aad_token", "key")


def planned(
    settings: AmlSettings, model: str, endpoint: str, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """The deployment as it can be said without asking Azure."""
    reference = model if ":" in model else f"{model}@latest"
    return _made(settings, f"azureml:{reference}", endpoint, asked, environment_name(settings))


def _made(
    settings: AmlSettings, model: str, endpoint: str, asked: Mapping[str, Any], environment: str
) -> dict[str, Any]:
    deployment = Deployment(
        endpoint=endpoint,
        name=asked["name"],
        model=model,
        instances=asked["instances"],
        settings=settings,
    )
    return document(deployment, environment_of(environment))


def checked(made: Mapping[str, Any], folder: Path) -> str:
    """The deployment's YAML, when nothing is wrong with it; its script is put in place.

    Raises:
        SettingsError: names everything that is wrong.
    """
    snapshot.stage({SCRIPT: serving.SCRIPT}, folder / CODE)
    check.require(
        [*problems(made, folder), *check.leaks(made, os.environ)],
        "the settings of the deployment",
        "deployment",
    )
    text = as_yaml(made)
    sdk.load_deployment(text, folder)
    return text


def deploy(
    ml: Any, settings: AmlSettings, model: str, endpoint: str, asked: Mapping[str, Any]
) -> str:
    """Make environment and endpoint where they are missing, and the deployment.

    Returns:
        The address that requests go to.

    Raises:
        ModelError: there is no such model.
    """
    name, _, version = model.partition(":")
    version = version or str(models.newest(ml, name).version)
    environment = environment_name(settings)
    if environment != settings.environment:
        environment, is_new = assets.environment(ml, settings, serves=True)
        click.echo(f"environment {environment}: {'created' if is_new else 'is there'}")
    made = _made(settings, f"azureml:{name}:{version}", endpoint, asked, environment)
    text = checked(made, Path())
    found = _endpoint(ml, endpoint, asked["auth"])
    click.echo(f"deploying {name}:{version} as {asked['name']}, which takes some minutes")
    ml.online_deployments.begin_create_or_update(sdk.load_deployment(text, Path.cwd())).result()
    found.traffic = {asked["name"]: 100}
    ml.online_endpoints.begin_create_or_update(found).result()
    return str(ml.online_endpoints.get(endpoint).scoring_uri)


def _endpoint(ml: Any, name: str, auth: str) -> Any:
    """The endpoint, made when it is not there."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return ml.online_endpoints.get(name)
    except ResourceNotFoundError:
        made = ManagedOnlineEndpoint(name=name, auth_mode=auth)
        return ml.online_endpoints.begin_create_or_update(made).result()


def delete(ml: Any, name: str) -> None:
    """Delete an endpoint with its deployments.

    Raises:
        SettingsError: there is none of this name; another one may go on costing money.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        ml.online_endpoints.get(name)
    except ResourceNotFoundError:
        raise SettingsError(
            f"there is no endpoint {name}", where="--endpoint", hint="name the one to delete"
        ) from None
    ml.online_endpoints.begin_delete(name).result()
