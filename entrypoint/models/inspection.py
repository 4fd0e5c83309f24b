"""What one model is, from its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrypoint.models.card import Model, describe, read_config
from entrypoint.models.embedded.materialise import SHIPPED_CONFIG, embedded_folder
from entrypoint.models.source import load
from entrypoint.models.weights import SINGLE_FILE, find_shards
from entrypoint.settings import EMBEDDED


def inspect(reference: str, environ: Mapping[str, str]) -> Model:
    """The card of a model; a folder's weights may be missing, then it has no shards.

    Raises:
        ModelError: no such model, or one that is not supported.
    """
    if reference == EMBEDDED:
        folder = embedded_folder(environ)
        return describe(reference, folder, read_config(SHIPPED_CONFIG), (SINGLE_FILE,))
    folder = Path(reference).expanduser().resolve()
    if not folder.is_dir():
        return load(reference, environ)
    config = read_config(folder / "config.json")
    has_weights = any(folder.glob("*.safetensors"))
    return describe(reference, folder, config, find_shards(folder) if has_weights else ())


def as_dict(model: Model) -> dict[str, Any]:
    """The card as plain values, for JSON."""
    tokenizer = model.folder / "tokenizer.json"
    # the card of a model that is yet to be fetched is not made without one
    has_tokenizer = tokenizer.is_file() or not model.folder.is_dir()
    return {
        "reference": model.reference,
        "architecture": model.architecture,
        "family": model.family,
        "parameters": model.parameters,
        "context": model.context,
        "builder": model.builder,
        "lora_builder": model.lora_builder,
        "model_type": model.model_type,
        "arguments": dict(model.arguments),
        "shards": list(model.shards),
        "tokenizer": tokenizer.name if has_tokenizer else None,
    }
