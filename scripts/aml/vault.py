"""Inside a job: `python vault.py COMMAND…` reads tokens from a key vault and becomes the command.

It needs nothing of the project, as it is shipped with the job alone.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping

SECRETS = ("HF_TOKEN", "WANDB_API_KEY")
"""In the vault they are called HF-TOKEN and WANDB-API-KEY: names there have no underscores."""
VAULT = "KEY_VAULT_URL"
IDENTITY = "DEFAULT_IDENTITY_CLIENT_ID"
"""Set by Azure ML in a job on a cluster that has an identity."""
SETTINGS_EXIT = 3


def fetch(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets that `environ` lacks and the vault has.

    Raises:
        azure.core.exceptions.AzureError: the vault does not answer, or refuses.
    """
    from azure.core.exceptions import ResourceNotFoundError
    from azure.identity import DefaultAzureCredential
    from azure.keyvault.secrets import SecretClient

    credential = DefaultAzureCredential(managed_identity_client_id=environ.get(IDENTITY))
    found = {}
    with SecretClient(environ[VAULT], credential) as client:
        for name in SECRETS:
            if environ.get(name):
                continue
            try:
                found[name] = client.get_secret(name.replace("_", "-")).value or ""
            except ResourceNotFoundError:
                print(f"the key vault has no {name.replace('_', '-')}", file=sys.stderr)
    return found


def main(command: list[str], environ: MutableMapping[str, str]) -> None:
    """Become `command`, with the secrets in its environment and nowhere else."""
    from azure.core.exceptions import AzureError

    try:
        found = fetch(environ)
    except AzureError as error:
        print(
            f"Error: the key vault cannot be read: {str(error).splitlines()[0]}\n"
            f"  where: {environ[VAULT]}, the environment variable {VAULT}\n"
            "  to do: give the identity of the compute the role Key Vault Secrets User",
            file=sys.stderr,
        )
        sys.exit(SETTINGS_EXIT)
    os.execvpe(command[0], command, {**environ, **found})


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
