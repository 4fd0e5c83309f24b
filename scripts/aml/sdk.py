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
    with quiet(), redirect_stderr(io.StringIO()):
        from azure.ai.ml import load_job
        from azure.ai.ml.entities._job.to_rest_functions import to_rest_job_object
        from azure.core.exceptions import AzureError
        from marshmallow.exceptions import ValidationError

        stream = io.StringIO(text)
        # relative paths start from the folder of the file that the stream is named after
        stream.name = str(folder / "job.yml")
        try:
            job = load_job(stream)
            to_rest_job_object(job)
        except (AzureError, ValidationError, ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"Azure ML's SDK refuses the job: {error}", where=folder) from error
    return job
