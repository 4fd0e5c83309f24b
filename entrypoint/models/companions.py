"""What lies beside a model's weights and configuration: tokenizer, chat template and licence."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import yaml

from entrypoint.models.card import Model, read_config

README = "README.md"
FAST, NATIVE = "tokenizer.json", "tokenizer.model"
TEMPLATE_FILE, TEMPLATE_KEY_FILE = "chat_template.jinja", "tokenizer_config.json"


def with_companions(model: Model, folder: Path, names: Collection[str]) -> Model:
    """The card with tokenizer, chat template and licence.

    Args:
        folder: holds what is read of them.
        names: the files of the model.
    """
    return replace(
        model,
        tokenizer=next((name for name in (FAST, NATIVE) if name in names), None),
        chat_template=chat_template(folder),
        licence=licence(folder, names),
    )


def licence(folder: Path, names: Collection[str]) -> str | None:
    """As the head of README.md names it, or the licence file; None if neither says anything."""
    readme = folder / README
    if readme.is_file():
        head = _front_matter(readme.read_text("utf-8", errors="replace"))
        # the hub's `other` has its name beside it
        named = head.get("license_name") or head.get("license")
        if named:
            return str(named)
    return next((name for name in sorted(names) if name.upper().startswith("LICEN")), None)


def _front_matter(text: str) -> dict[str, object]:
    parts = text.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}


def chat_template(folder: Path) -> str | None:
    """The file that has it."""
    if (folder / TEMPLATE_FILE).is_file():
        return TEMPLATE_FILE
    config = folder / TEMPLATE_KEY_FILE
    if config.is_file() and "chat_template" in read_config(config):
        return TEMPLATE_KEY_FILE
    return None
