"""Small files of a job where they lie, without downloading all that lies beside them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.errors import SettingsError

PATH = re.compile(r"azureml:.*datastores/([^/]+)/(?:paths/)?(.*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder of a datastore."""

    container: Any
    """An azure.storage.blob.ContainerClient."""
    prefix: str

    def names(self, under: str = "") -> Iterator[str]:
        """Files below a folder of it, in order, without the folder's name."""
        start = f"{self.prefix}/{under}/".replace("//", "/")
        for blob in self.container.list_blobs(start):
            yield blob.name.removeprefix(start)

    def read(self, name: str) -> bytes | None:
        """A file's content; None when it is not there."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            content: bytes = self.container.download_blob(f"{self.prefix}/{name}").readall()
        except ResourceNotFoundError:
            return None
        return content

    def fetch(self, name: str, path: Path) -> None:
        """Download a file, piece by piece."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            self.container.download_blob(f"{self.prefix}/{name}").readinto(file)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """What a JSON file says; None when it is not there."""
        content = self.read(name)
        found: dict[str, Any] | None = None if content is None else json.loads(content)
        return found


def place(ml: Any, path: str) -> Place:
    """Where a job's output lies, with the right to read it that the workspace gives.

    Args:
        path: azureml://datastores/…, or its long form.

    Raises:
        SettingsError: it is another address.
    """
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import ContainerClient

    found = PATH.match(path)
    if found is None:
        raise SettingsError("the output lies in no datastore", where=path)
    datastore = ml.datastores.get(found[1], include_secrets=True)
    secret = getattr(datastore.credentials, "account_key", None) or getattr(
        datastore.credentials, "sas_token", None
    )
    container = ContainerClient(
        f"{datastore.protocol}://{datastore.account_name}.blob.{datastore.endpoint}",
        datastore.container_name,
        credential=secret or DefaultAzureCredential(),
    )
    return Place(container=container, prefix=found[2].strip("/"))
