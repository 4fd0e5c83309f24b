"""What one model is, from its folder or from the hub."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from entrypoint.models.card import Model, describe, read_config
from entrypoint.models.companions import FAST, TEMPLATE_FILE, with_companions
from entrypoint.models.download import Download
from entrypoint.models.embedded.materialise import LICENCE, SHIPPED_CONFIG, embedded_folder
from entrypoint.models.source import (
    check_headers,
    describe_remote,
    description,
    naming_the_hub,
    on_hub,
    say_size,
)
from entrypoint.models.weights import SINGLE_FILE, find_shards, verify
from entrypoint.progress import say
from entrypoint.settings import EMBEDDED


def inspect(reference: str, environ: Mapping[str, str]) -> Model:
    """The card of a model. Its weights may be missing, then it has no shards, and so may be its
    tokenizer and chat template.

    Raises:
        ModelError: no such model, one that is not supported, or corrupt weights.
    """
    if reference == EMBEDDED:
        folder = embedded_folder(environ)
        model = describe(reference, folder, read_config(SHIPPED_CONFIG), (SINGLE_FILE,))
        return replace(model, licence=LICENCE, chat_template=TEMPLATE_FILE, tokenizer=FAST)
    folder = Path(reference).expanduser()
    if not folder.is_dir():
        download = Download(on_hub(reference), environ)
        if (cached := download.cached()) is None:
            return _on_the_hub(reference, download)
        folder = cached
    return _in_a_folder(reference, folder.resolve())


def _in_a_folder(reference: str, folder: Path) -> Model:
    shards = find_shards(folder) if any(folder.glob("*.safetensors")) else ()
    model = describe(reference, folder, read_config(folder / "config.json"), shards)
    if shards:
        model = replace(model, dtype=verify(folder, shards, model.tensors))
    return with_companions(model, folder, {path.name for path in folder.iterdir()})


def _on_the_hub(reference: str, download: Download) -> Model:
    with description(download) as folder, naming_the_hub(download):
        model = describe_remote(reference, download, folder)
        if not all(name in download.snapshot.files for name in model.shards):
            say(f"{reference} has no {model.shards[0]} on the hub: there is nothing to start from")
            return replace(model, shards=())
        model = replace(model, dtype=check_headers(model, download))
    say_size(model, download)
    return model


def as_dict(model: Model) -> dict[str, Any]:
    """The card as plain values, for JSON."""
    return {
        "reference": model.reference,
        "architecture": model.architecture,
        "family": model.family,
        "parameters": model.parameters,
        "dtype": model.dtype,
        "context": model.context,
        "context_bound": model.context_bound,
        "builder": model.builder,
        "lora_builder": model.lora_builder,
        "model_type": model.model_type,
        "arguments": dict(model.arguments),
        "shards": list(model.shards),
        "tokenizer": model.tokenizer,
        "chat_template": model.chat_template,
        "licence": model.licence,
    }
