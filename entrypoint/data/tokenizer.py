"""A model's tokenizer without transformers, which takes three seconds to import.

What transformers makes of a folder depends on the tokenizer's class, the model's kind and more, so
it is asked all the same: once for each tokenizer, and what it made is remembered in the cache.
"""

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tokenizers

from entrypoint.errors import ModelError
from entrypoint.files import read_json, sha256_of, write_json
from entrypoint.models.embedded.materialise import cache_folder

FORMAT = 1
"""Of what is remembered; goes up when that changes."""


@dataclass(kw_only=True, slots=True)
class Tokenizer:
    """What conversations are written out and tokenised with; names are those of transformers."""

    folder: Path
    backend: tokenizers.Tokenizer
    chat_template: str | dict[str, str] | None
    """A template, or several by name."""
    special_tokens_map: dict[str, str]
    eos_token_id: int | None
    pad_token_id: int | None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return str(self.backend.decode(ids, skip_special_tokens=False))

    def __len__(self) -> int:
        """Tokens of the vocabulary, added ones included."""
        return int(self.backend.get_vocab_size())


def load(folder: Path, environ: Mapping[str, str]) -> Tokenizer:
    """The tokenizer of a folder with tokenizer.json.

    Args:
        environ: names the cache.
    """
    path = place_of(folder, environ)
    known = read_json(path)
    if known is None:
        known = _of_transformers(folder)
        with suppress(OSError):  # then it is asked again the next time
            write_json(path, known)
    return Tokenizer(
        folder=folder,
        backend=tokenizers.Tokenizer.from_str(known.pop("backend")),
        **known,
    )


def place_of(folder: Path, environ: Mapping[str, str]) -> Path:
    """The file in the cache that remembers a folder's tokenizer; it need not be there."""
    key = hashlib.sha256(repr((FORMAT, *_versions(), *texts_of(folder))).encode()).hexdigest()
    return cache_folder(environ) / "tokenizers" / f"{key}.json"


def texts_of(model: Path) -> list[str]:
    """Hashes of a model's files that say how text becomes tokens: all but weights and model card,
    which are of any size.

    Raises:
        ModelError: one cannot be read.
    """
    found = []
    for path in sorted(model.iterdir()):
        if path.suffix in (".json", ".jinja", ".model", ".txt") and path.is_file():
            try:
                found.append(f"{path.name} {sha256_of(path)}")
            except OSError as error:
                raise ModelError(f"cannot be read: {error.strerror}", where=path) from error
    return found


def _versions() -> list[str]:
    return [version(package) for package in ("transformers", "tokenizers")]


def _of_transformers(folder: Path) -> dict[str, Any]:
    """What there is to remember: fields of Tokenizer, as JSON knows them."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder)
    # a tokenizer.json may hold what its last user cut and filled up to
    found.backend_tokenizer.no_truncation()
    found.backend_tokenizer.no_padding()
    return {
        "backend": found.backend_tokenizer.to_str(),
        "chat_template": found.chat_template,
        "special_tokens_map": found.special_tokens_map,
        "eos_token_id": found.eos_token_id,
        "pad_token_id": found.pad_token_id,
    }


if __name__ == "__main__":
    sys.modules["torch"] = None  # type: ignore[assignment]
    # that torch is not there
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    load(Path(sys.argv[1]), os.environ)
