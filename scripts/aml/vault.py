"""Inside a job: `python vault.py COMMAND…` reads tokens and becomes the command. They come from a
key vault, or from connections of the workspace.

It needs nothing of the project, as it is shipped with the job alone.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

Secret = Callable[[str], "str | None"]
"""Reads one secret by its name there."""

SECRETS = ("HF_TOKEN", "WANDB_API_KEY")
"""There they are called HF-TOKEN and WANDB-API-KEY: names in a vault have no underscores."""
VAULT = "KEY_VAULT_URL"
CONNECTIONS = "TUNECASK_CONNECTIONS"
"""Set where tokens are the keys of connections."""
WORKSPACE = ("SUBSCRIPTION", "RESOURCEGROUP", "WORKSPACE_NAME")
"""Azure ML says these in a job, as AZUREML_ARM_<NAME>."""
ROLES = {
    VAULT: "Key Vault Secrets User",
    CONNECTIONS: "Azure Machine Learning Workspace Connection Secrets Reader",
}
IDENTITY = "DEFAULT_IDENTITY_CLIENT_ID"
"""Set by Azure ML in a job on a cluster that has an identity."""
SETTINGS_EXIT = 3


def fetch(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets that `environ` lacks and the vault, or the workspace, has.

    Raises:
        azure.core.exceptions.AzureError: it does not answer, or refuses.
    """
    from azure.core.exceptions import ResourceNotFoundError
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential(managed_identity_client_id=environ.get(IDENTITY))
    read = of_vault if environ.get(VAULT) else of_workspace
    found = {}
    with read(environ, credential) as secret:
        for name in SECRETS:
            if environ.get(name):
                continue
            try:
                found[name] = secret(name.replace("_", "-")) or ""
            except ResourceNotFoundError:
                print(f"there is no {name.replace('_', '-')}", file=sys.stderr)
    return found


@contextmanager
def of_vault(environ: Mapping[str, str], credential: Any) -> Iterator[Secret]:
    from azure.keyvault.secrets import SecretClient

    with SecretClient(environ[VAULT], credential) as client:
        yield lambda name: client.get_secret(name).value


@contextmanager
def of_workspace(environ: Mapping[str, str], credential: Any) -> Iterator[Secret]:
    from azure.ai.ml import MLClient

    place = [environ[f"AZUREML_ARM_{name}"] for name in WORKSPACE]
    client = MLClient(credential, *place, enable_telemetry=False)

    def read(name: str) -> str | None:
        found = client.connections.get(name, populate_secrets=True)
        return getattr(found.credentials, "key", None)

    yield read


def main(command: list[str], environ: MutableMapping[str, str]) -> None:
    """Become `command`, with the secrets in its environment and nowhere else."""
    from azure.core.exceptions import AzureError

    try:
        found = fetch(environ)
    except AzureError as error:
        variable = VAULT if environ.get(VAULT) else CONNECTIONS
        print(
            f"Error: tokens cannot be read: {str(error).splitlines()[0]}\n"
            f"  where: {environ[variable]}, the environment variable {variable}\n"
            f"  to do: give the identity of the compute the role {ROLES[variable]}",
            file=sys.stderr,
        )
        sys.exit(SETTINGS_EXIT)
    os.execvpe(command[0], command, {**environ, **found})


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
