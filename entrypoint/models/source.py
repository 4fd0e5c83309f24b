"""From what --model names to a verified card."""

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from entrypoint.models.tensors import Stored
from entrypoint.models.tied import check_tied
from entrypoint.models.tokenizers import native_tokenizer
from entrypoint.models.weights import SINGLE_FILE, compare, find_shards, named_shards, verify
from entrypoint.progress import gb, say
from entrypoint.settings import EMBEDDED

HEADERS_AT_ONCE = 8
"""Requests at a time for the headers of weight files: the largest models have hundreds."""


def load(
    reference: str,
    environ: Mapping[str, str],
    *,
    chat: bool = True,
    dry: bool = True,
    look: Callable[[Path], None] | None = None,
) -> Model:
    """The card of the model that `reference` names.

    Weight files are checked against config.json by their headers. They may not be there yet:
    `ensure_present` fetches those of a model of the hub, of which only the headers are read here,
    and writes the built-in model.

    Args:
        chat: the model is to read conversations, which takes a chat template.
        dry: write nothing. Otherwise small files of a model of the hub go to the cache.
        look: called with a folder that holds the tokenizer for now, unless the built-in model is
            not written yet.

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
            return _remote(reference, download, chat=chat, dry=dry, look=look)
        folder = cached
    shards = find_shards(folder)
    model = describe(reference, folder.resolve(), read_config(folder / "config.json"), shards)
    dtype = verify(folder, shards, model.tensors)
    names = {path.name for path in folder.iterdir()}
    model = with_companions(model, folder, names)
    native = native_tokenizer(folder, names, model.family, chat=chat)
    if look:
        look(folder)
    return replace(model, native_tokenizer=native, dtype=dtype)


def on_hub(reference: str) -> hub.Reference:
    """The repository of the hub that is meant where no folder is.

    Raises:
        ModelError: `reference` cannot be one.
    """
    found = hub.parse(reference)
    if found is None:
        hint = "give a folder in Hugging Face format, ORG/NAME on the model hub, or `embedded`"
        if name := linked(reference):
            hint = f"give the model of this page by its name: {name}"
        raise ModelError(
            f"there is no model folder {reference}", where="--model or TRAIN_MODEL", hint=hint
        )
    return found


def linked(text: str) -> str | None:
    """The repository whose page a link leads to, of any host."""
    match = re.match(rf"https?://[^/]+/(?!datasets/|spaces/)({hub.REPO})(?:/tree/([^/?#]+))?", text)
    if match is None:
        return None
    return match[1] + (f"@{match[2]}" if match[2] and match[2] != "main" else "")


def short_name(reference: str) -> str:
    """The last part of what --model names, to call a folder by."""
    folder = Path(reference).expanduser()
    if folder.is_dir():
        # of `.` and `..` what they stand for
        return folder.name.strip(".") or folder.resolve().name
    found = hub.parse(reference)
    return Path(found.repo if found else reference).name


def _remote(
    reference: str,
    download: Download,
    *,
    chat: bool,
    dry: bool,
    look: Callable[[Path], None] | None,
) -> Model:
    """The card of a model that is still on the hub."""
    found = description(download, dry=dry, tokenizer=look is not None)
    with found as folder, naming_the_hub(download):
        model = describe_remote(reference, download, folder)
        download.check_weights(model.shards)
        native = native_tokenizer(folder, download.snapshot.files, model.family, chat=chat)
        dtype = check_headers(model, download)
        if look:
            look(folder)
    download.check_room(model.shards)
    if dry:
        say_size(model, download)
    return replace(model, native_tokenizer=native, dtype=dtype)


def describe_remote(reference: str, download: Download, folder: Path) -> Model:
    """The card by the small files in `folder`; the hub may not have the weights that it names.

    Raises:
        ModelError: there is no config.json, or it is of an unsupported model.
    """
    config = read_config(folder / "config.json")
    model = describe(reference, download.folder.resolve(), config, named_shards(folder))
    return with_companions(model, folder, download.snapshot.files)


def check_headers(model: Model, download: Download) -> str:
    """Hold the headers of the weight files on the hub against the card.

    Returns:
        The number format of the weights.

    Raises:
        ModelError: a file is corrupt, or holds other tensors than config.json implies.
    """
    found: dict[str, Stored] = {}
    with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
        headers = pool.map(lambda name: download.hub.header(download.snapshot, name), model.shards)
        for header in headers:
            found |= {
                name: Stored(shape=shape, dtype=dtype) for name, (shape, dtype) in header.items()
            }
    return compare(found, model.tensors, where=download.page)


def say_size(model: Model, download: Download) -> None:
    """Tell how much is still to be downloaded."""
    size = sum(download.snapshot.files[name].size for name in model.shards)
    say(f"{model.reference} is not in the cache: a run downloads {gb(size)} of weights first")


@contextmanager
def description(download: Download, *, dry: bool = True, tokenizer: bool = False) -> Iterator[Path]:
    """A folder with the small files of a model: for now, or on their way into the cache.

    Args:
        tokenizer: whether it is wanted where only what a card is made from would be fetched.
    """
    if not dry:
        with download.small_files() as folder:
            yield folder
        return
    with TemporaryDirectory(prefix="tunecask-") as scratch:
        download.describe_into(Path(scratch), tokenizer=tokenizer)
        yield Path(scratch)


@contextmanager
def naming_the_hub(download: Download) -> Iterator[None]:
    """What is wrong with the small files is wrong on the hub, not in a folder of ours."""
    try:
        yield
    except ModelError as error:
        if Path(error.where or "").is_absolute():
            error.where = download.page
        raise


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
    if "lm_head.weight" not in model.tensors:
        check_tied(model.folder, model.shards)
