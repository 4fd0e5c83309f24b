"""From what --model names to a verified card."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from entrypoint import hub
from entrypoint.errors import ModelError
from entrypoint.models.card import Model, describe, read_config
from entrypoint.models.companions import with_companions
from entrypoint.models.download import Download
from entrypoint.models.embedded.materialise import SHIPPED_CONFIG, embedded_folder, materialise
from entrypoint.models.finite import check_finite
from entrypoint.models.tensors import Shape
from entrypoint.models.tokenizers import native_tokenizer
from entrypoint.models.weights import SINGLE_FILE, compare, find_shards, named_shards, verify
from entrypoint.progress import gb, say
from entrypoint.settings import EMBEDDED


def load(
    reference: str, environ: Mapping[str, str], *, chat: bool = True, dry: bool = True
) -> Model:
    """The card of the model that `reference` names.

    Weight files are checked against config.json by their headers. They may not be there yet:
    `ensure_present` fetches those of a model of the hub, of which only the headers are read here,
    and writes the built-in model.

    Args:
        chat: the model is to read conversations, which takes a chat template.
        dry: write nothing. Otherwise small files of a model of the hub go to the cache.

    Raises:
        ModelError: the model is missing, incomplete, corrupt or of an unsupported kind.
    """
    if reference == EMBEDDED and not embedded_folder(environ).is_dir():
        return describe(
            reference, embedded_folder(environ), read_config(SHIPPED_CONFIG), (SINGLE_FILE,)
        )
    folder = embedded_folder(environ) if reference == EMBEDDED else Path(reference).expanduser()
    if not folder.is_dir():
        download = Download(on_hub(reference), environ)
        if (cached := download.cached()) is None:
            return _remote(reference, download, chat=chat, dry=dry)
        folder = cached
    shards = find_shards(folder)
    model = describe(reference, folder.resolve(), read_config(folder / "config.json"), shards)
    verify(folder, shards, model.tensors)
    names = {path.name for path in folder.iterdir()}
    model = with_companions(model, folder, names)
    native = native_tokenizer(folder, names, model.family, chat=chat)
    return replace(model, native_tokenizer=native)


def on_hub(reference: str) -> hub.Reference:
    """The repository of the hub that is meant where no folder is.

    Raises:
        ModelError: `reference` cannot be one.
    """
    found = hub.parse(reference)
    if found is None:
        raise ModelError(
            f"there is no model folder {reference}",
            where="--model or TRAIN_MODEL",
            hint="give a folder in Hugging Face format, ORG/NAME on the model hub, or `embedded`",
        )
    return found


def short_name(reference: str) -> str:
    """The last part of what --model names, to call a folder by."""
    found = None if Path(reference).expanduser().is_dir() else hub.parse(reference)
    return Path(found.repo if found else reference).name


def _remote(reference: str, download: Download, *, chat: bool, dry: bool) -> Model:
    """The card of a model that is still on the hub."""
    with _description(download) if dry else download.small_files() as folder:
        shards = named_shards(folder)
        if not (folder / "config.json").is_file():
            raise ModelError(f"{download.reference} has no config.json", where="--model")
        model = describe(
            reference, download.folder.resolve(), read_config(folder / "config.json"), shards
        )
        download.check_weights(shards)
        model = with_companions(model, folder, download.snapshot.files)
        native = native_tokenizer(folder, download.snapshot.files, model.family, chat=chat)
    found: dict[str, Shape] = {}
    for name in shards:
        found |= download.hub.shapes(download.snapshot, name)
    compare(found, model.tensors, where=download.reference)
    download.check_room(shards)
    size = sum(download.snapshot.files[name].size for name in shards)
    if dry:
        say(f"{reference} is not in the cache: a run downloads {gb(size)} of weights first")
    return replace(model, native_tokenizer=native)


@contextmanager
def _description(download: Download) -> Iterator[Path]:
    with TemporaryDirectory(prefix="tunecask-") as folder:
        download.describe_into(Path(folder))
        yield Path(folder)


def ensure_present(model: Model, environ: Mapping[str, str]) -> None:
    """Put the model into the cache when it is not there, and look into its weights.

    Raises:
        ModelError: it cannot be fetched, or its weights are corrupt.
        DoesNotFitError: the disk has too little room.
    """
    if model.reference == EMBEDDED:
        materialise(model.folder)
    elif not model.folder.is_dir():
        # the commit that the plan was made for, and the name that it was asked for by
        download = Download(on_hub(model.reference), environ, commit=model.folder.name)
        download.complete(named_shards)
        verify(model.folder, model.shards, model.tensors)
    check_finite(model.folder, model.shards)
