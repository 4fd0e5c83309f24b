"""Where and how a job runs: one frozen value, from flags, variables and aml.yaml."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from entrypoint.errors import SettingsError
from entrypoint.secrets import SECRET_NAME

FILE = Path("aml.yaml")
WORKSPACE_VARIABLES = {
    "subscription": "AZURE_SUBSCRIPTION_ID",
    "resource_group": "AZURE_RESOURCE_GROUP",
    "workspace": "AZURE_WORKSPACE",
}
"""The names that Azure's own tools use; every other setting has AML_<NAME>."""

Start = Literal["node", "gpu"]
Identity = Literal["managed", "user", "none"]
Tier = Literal["dedicated", "low-priority"]
Priority = Literal["low", "medium", "high"]
SERVERLESS = "serverless"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AmlSettings:
    """A workspace, a machine, and how the job starts there."""

    subscription: str | None = None
    resource_group: str | None = None
    workspace: str | None = None
    compute: str | None = None
    """A cluster's name, or `serverless`."""
    size: str | None = None
    """The VM size of the machines: Standard_NC24ads_A100_v4."""
    tier: Tier = "dedicated"
    priority: Priority | None = None
    """Of a serverless job."""
    nodes: int = 1
    start: Start = "node"
    """Whether `train` is started once on each node, or once for each GPU."""
    environment: str = "tunecask"
    """Name of the environment, NAME:VERSION, or azureml://registries/…"""
    install: bool = False
    """Whether the environment is a curated one, without Tunecask: the job installs it first."""
    image: str | None = None
    """A pushed image that the environment is made of; None builds it from this folder."""
    dockerfile: str = "Dockerfile.ubuntu2204"
    experiment: str = "tunecask"
    datastore: str = "workspaceblobstore"
    """Where run folders are kept."""
    shm_size: str = "16g"
    docker_args: str | None = None
    identity: Identity = "managed"
    key_vault: str | None = None
    """Address of the vault that the job reads its tokens from."""
    connections: bool = False
    """Whether the job reads them from connections of the workspace instead."""
    timeout: int | None = None
    """Minutes after which the job is ended."""
    tags: tuple[str, ...] = ()
    """KEY=VALUE."""

    @property
    def fetches_tokens(self) -> bool:
        return self.key_vault is not None or self.connections


def names() -> tuple[str, ...]:
    """All settings, in order."""
    return tuple(field.name for field in fields(AmlSettings))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return WORKSPACE_VARIABLES.get(name, f"AML_{name.upper()}")


def read_file(path: Path) -> dict[str, Any]:
    """The settings of an aml.yaml, by name; values are checked where options are.

    Raises:
        SettingsError: no mapping, an unknown key, or one that names a secret.
    """
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the settings cannot be read: {error}", where=path) from error
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise SettingsError("the settings are no list of `key: value`", where=path)
    for key in map(str, found):
        _check_key(key, path)
    given = dict(found)
    if isinstance(given.get("tags"), Mapping):
        given["tags"] = [f"{key}={value}" for key, value in given["tags"].items()]
    return given


def _check_key(key: str, path: Path) -> None:
    if key in names():
        return
    if SECRET_NAME.search(key):
        raise SettingsError(
            f"the key {key} looks like a secret, and this file holds none",
            where=path,
            hint="put it into a key vault and name the vault: key_vault: https://NAME.vault.azure.net",
        )
    near = difflib.get_close_matches(key, names(), 1)
    raise SettingsError(
        f"unknown key {key}",
        where=path,
        hint=f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names())}",
    )


def split_tags(tags: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE as a mapping.

    Raises:
        SettingsError: one has no key or no value, or its key names a secret.
    """
    pairs = [tag.partition("=") for tag in tags]
    for key, _, value in pairs:
        if not key or not value:
            raise SettingsError(f"the tag {key!r} is not KEY=VALUE", where="--tag or AML_TAGS")
        if SECRET_NAME.search(key):
            raise SettingsError(f"the tag {key} looks like a secret", where="--tag or AML_TAGS")
    return {key: value for key, _, value in pairs}
