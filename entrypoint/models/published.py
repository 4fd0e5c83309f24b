"""Published models of every family: cards made from the facts of their public config.json."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from entrypoint.models.card import Model, describe
from entrypoint.models.companions import FAST
from entrypoint.models.source import load
from entrypoint.settings import EMBEDDED

FACTS = Path(__file__).with_name("published.json")
"""Hub id -> what its config.json says, of the keys that a card is made from."""


def published() -> dict[str, Model]:
    """Hub id -> card, in the order of families and sizes; a card's folder is no folder."""
    configs: dict[str, dict[str, Any]] = json.loads(FACTS.read_text("utf-8"))
    return {
        # all of them are published with one
        name: replace(describe(name, Path(name), config, ()), tokenizer=FAST)
        for name, config in configs.items()
    }


def known(reference: str, environ: Mapping[str, str]) -> Model | None:
    """What is known of a model without a network: of a folder that is called as a published model
    too, what the folder holds. None for nothing.

    Raises:
        ModelError: a folder holds no model that is supported.
    """
    if reference == EMBEDDED or Path(reference).expanduser().is_dir():
        return load(reference, environ, chat=False, dry=True)
    return published().get(reference.partition("@")[0])
