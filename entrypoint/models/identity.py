"""What tells one model from another: its reference with a revision, and a hash."""

import hashlib
from pathlib import Path

from entrypoint.hub import parse
from entrypoint.models.card import Model

SAMPLES, SAMPLE_BYTES = 64, 4096
"""Of a file of weights: enough to tell two models of the same shape apart."""


def mark(model: Model) -> str:
    """A hash of config.json, and of samples of the weights."""
    digest = hashlib.sha256((model.folder / "config.json").read_bytes())
    for name in model.shards:
        size = (model.folder / name).stat().st_size
        digest.update(f"{name} {size}".encode())
        with (model.folder / name).open("rb") as file:
            for sample in range(SAMPLES):
                file.seek(size * sample // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def pinned(model: Model) -> str:
    """The reference by which another machine finds the very same model."""
    if Path(model.reference).expanduser().is_dir():
        return str(model.folder)
    repository = parse(model.reference)
    # a model of the hub lies in a folder that is named by its commit
    return f"{repository.repo}@{model.folder.name}" if repository else model.reference
