"""What one model is, from its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrypoint.errors import ModelError
from entrypoint.models.card import Model, describe, read_config
from entrypoint.models.embedded.materialise import SHIPPED_CONFIG, embedded_folder
from entrypoint.models.weights import SINGLE_FILE, find_shards
from entrypoint.settings import EMBEDDED


def inspect(reference: str, environ: Mapping[str, str]) -> Model:
    """The card of a model folder; its weights may be missing, then it has no shards.

    Raises:
        ModelError: no folder, or a model that is not supported.
    """
    if reference == EMBEDDED:
        folder = embedded_folder(environ)
        return describe(reference, folder, read_config(SHIPPED_CONFIG), (SINGLE_FILE,))
    folder = Path(reference).expanduser().resolve()
    if not folder.is_dir():
        raise ModelError(
            f"there is no model folder {reference}",
            where="train models REF",
            hint="give a folder with a config.json, or `embedded`",
        )
    config = read_config(folder / "config.json")
    has_weights = any(folder.glob("*.safetensors"))
    return describe(reference, folder, config, find_shards(folder) if has_weights else ())


def as_dict(model: Model) -> dict[str, Any]:
    """The card as plain values, for JSON."""
    tokenizer = model.folder / "tokenizer.json"
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
        "tokenizer": tokenizer.name if tokenizer.is_file() else None,
    }
