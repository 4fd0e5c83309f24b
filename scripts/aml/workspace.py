"""The workspace, as Azure's SDK reaches it, and what its errors mean to the user."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from entrypoint.errors import SettingsError
from entrypoint.machines import Size
from entrypoint.process import git_address
from scripts.aml.sdk import quiet
from scripts.aml.settings import WORKSPACE_VARIABLES, AmlSettings, variable
from scripts.aml.sizes import documented, listed
from scripts.aml.snapshot import ROOT

TELEMETRY = "AZURE_CORE_COLLECT_TELEMETRY"
GIT_ADDRESS = "AZUREML_GIT_REPOSITORY_URI"
"""What the SDK tells of this checkout; by itself it tells the address with a password in it."""


@contextmanager
def connected(settings: AmlSettings) -> Iterator[Any]:
    """An MLClient of the workspace; signs in with what the machine has.

    Raises:
        SettingsError: the workspace is not named, or Azure refuses.
    """
    for name in WORKSPACE_VARIABLES:
        if not getattr(settings, name):
            raise SettingsError(
                f"the {name.replace('_', ' ')} is not known",
                where=f"--{name.replace('_', '-')}, {variable(name)} or {name} in aml.yaml",
            )
    os.environ.setdefault(GIT_ADDRESS, public_address())
    os.environ.setdefault(TELEMETRY, "no")
    with quiet():
        from azure.ai.ml import MLClient
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import DefaultAzureCredential

        try:
            yield MLClient(
                DefaultAzureCredential(),
                settings.subscription,
                settings.resource_group,
                settings.workspace,
                enable_telemetry=False,
                show_progress=False,
            )
        except ClientAuthenticationError as error:
            raise SettingsError(
                f"Azure does not let us in: {first_line(error)}",
                where=f"workspace {settings.workspace}",
                hint="sign in with `az login`, or set AZURE_CLIENT_ID and what belongs to it",
            ) from error
        except AzureError as error:
            raise SettingsError(
                f"Azure ML refuses: {first_line(error)}", where=f"workspace {settings.workspace}"
            ) from error


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def public_address() -> str:
    """The address of this checkout's origin, without what it may hold before its host."""
    address = git_address(ROOT) or "unknown"
    return re.sub(r"://[^/@]*@", "://", address)


def asked(ml: Any, settings: AmlSettings) -> Size | None:
    """The machines of the job, from Azure, or from the documented table if it does not answer.

    Raises:
        SettingsError: the region does not have the size.
    """
    from azure.core.exceptions import AzureError

    try:
        name = settings.size
        if name is None and settings.compute and settings.compute != "serverless":
            name = ml.compute.get(settings.compute).size
        if name is None:
            return None
        return listed(name, ml.compute.list_sizes())
    except AzureError:
        return documented(settings.size) if settings.size else None
