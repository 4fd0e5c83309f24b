"""What one model is, from its folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from entrypoint.models.card import Model, describe, read_config
from entrypoint.models.companions import TEMPLATE_FILE, with_companions
from entrypoint.models.embedded.materialise import LICENCE, SHIPPED_CONFIG, embedded_folder
from entrypoint.models.source import load
from entrypoint.models.tokenizers import FAST, NATIVE
from entrypoint.models.weights import SINGLE_FILE, find_shards
from entrypoint.settings import EMBEDDED


def inspect(reference: str, environ: Mapping[str, str]) -> Model:
    """The card of a model; a folder's weights may be missing, then it has no shards.

    Raises:
        ModelError: no such model, or one that is not supported.
    """
    if reference == EMBEDDED:
        folder = embedded_folder(environ)
        model = describe(reference, folder, read_config(SHIPPED_CONFIG), (SINGLE_FILE,))
        return replace(model, licence=LICENCE, chat_template=TEMPLATE_FILE)
    folder = Path(reference).expanduser().resolve()
    if not folder.is_dir():
        return load(reference, environ)
    config = read_config(folder / "config.json")
    has_weights = any(folder.glob("*.safetensors"))
    model = describe(reference, folder, config, find_shards(folder) if has_weights else ())
    return with_companions(model, folder, {path.name for path in folder.iterdir()})


def as_dict(model: Model) -> dict[str, Any]:
    """The card as plain values, for JSON."""
    names: tuple[str, ...] = (FAST, NATIVE)
    if model.folder.is_dir():
        names = tuple(name for name in names if (model.folder / name).is_file())
    # the card of a model that is yet to be fetched is not made without one of them
    elif model.native_tokenizer:
        names = (NATIVE,)
    return {
        "reference": model.reference,
        "architecture": model.architecture,
        "family": model.family,
        "parameters": model.parameters,
        "dtype": model.dtype,
        "context": model.context,
        "builder": model.builder,
        "lora_builder": model.lora_builder,
        "model_type": model.model_type,
        "arguments": dict(model.arguments),
        "shards": list(model.shards),
        "tokenizer": names[0] if names else None,
        "chat_template": model.chat_template,
        "licence": model.licence,
    }
