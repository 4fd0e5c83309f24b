"""Published models of every family: cards made from the facts of their public config.json."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from entrypoint.models.card import Model, describe
from entrypoint.models.companions import FAST

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
