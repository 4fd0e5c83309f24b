"""What Azure's SDK itself says of a job, without a network."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from entrypoint.errors import SettingsError


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings of azure-ai-ml 1.35.2 about fields that it calls experimental."""
    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load(text: str, folder: Path) -> Any:
    """The job entity of a YAML document.

    Args:
        folder: what relative paths start from.

    Raises:
        SettingsError: the SDK refuses it; with its words.
    """
    with _refusing("job", folder):
        from azure.ai.ml import load_job
        from azure.ai.ml.entities._job.to_rest_functions import to_rest_job_object

        job = load_job(_named(text, folder))
        to_rest_job_object(job)
    return job


def load_deployment(text: str, folder: Path) -> Any:
    """The deployment entity of a YAML document; as `load`."""
    with _refusing("deployment", folder):
        from azure.ai.ml import load_online_deployment

        deployment: Any = load_online_deployment(_named(text, folder))
        deployment._to_rest_object("anywhere")
    return deployment


def _named(text: str, folder: Path) -> io.StringIO:
    """Relative paths start from the folder of the file that the stream is named after."""
    stream = io.StringIO(text)
    stream.name = str(folder / "made.yml")
    return stream


@contextmanager
def _refusing(what: str, folder: Path) -> Iterator[None]:
    with quiet(), redirect_stderr(io.StringIO()):
        from azure.core.exceptions import AzureError
        from marshmallow.exceptions import ValidationError

        try:
            yield
        except (AzureError, ValidationError, ValueError, TypeError, KeyError) as error:
            raise SettingsError(
                f"Azure ML's SDK refuses the {what}: {error}", where=folder
            ) from error
