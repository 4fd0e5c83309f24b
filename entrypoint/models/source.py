"""From what --model names to a verified card."""

from collections.abc import Mapping
from pathlib import Path

from entrypoint.errors import ModelError
from entrypoint.models.card import Model, describe, read_config
from entrypoint.models.embedded.materialise import SHIPPED_CONFIG, embedded_folder, materialise
from entrypoint.models.weights import SINGLE_FILE, find_shards, verify
from entrypoint.settings import EMBEDDED


def load(reference: str, environ: Mapping[str, str]) -> Model:
    """The card of the model that `reference` names; writes nothing.

    Weight files are checked against config.json by their headers. The built-in model may not be
    in the cache yet: `ensure_present` puts it there.

    Raises:
        ModelError: the model is missing, incomplete, corrupt or of an unsupported kind.
    """
    if reference == EMBEDDED and not embedded_folder(environ).is_dir():
        return describe(
            reference, embedded_folder(environ), read_config(SHIPPED_CONFIG), (SINGLE_FILE,)
        )
    folder = embedded_folder(environ) if reference == EMBEDDED else Path(reference).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"there is no model folder {reference}",
            where="--model or TRAIN_MODEL",
            hint="give a folder in Hugging Face format, or `embedded`",
        )
    shards = find_shards(folder)
    model = describe(reference, folder.resolve(), read_config(folder / "config.json"), shards)
    verify(folder, shards, model.tensors)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise ModelError(f"the model folder has no {name}", where=folder)
    check_chat_template(folder)
    return model


def check_chat_template(folder: Path) -> None:
    """Make sure that the tokenizer can render a conversation.

    Raises:
        ModelError: it has no chat template.
    """
    config = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file() or "chat_template" in read_config(config):
        return
    raise ModelError(
        "the model has no chat template, so a conversation cannot be written out for it",
        where=folder,
        hint="use the instruct variant of the model, or put its chat_template.jinja there",
    )


def ensure_present(model: Model) -> None:
    """Put the built-in model into the cache when it is meant and not there."""
    if model.reference == EMBEDDED:
        materialise(model.folder)
