"""Named sets of options, in recipes/presets: values that scale with the model and the data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entrypoint import templates
from entrypoint.errors import SettingsError
from entrypoint.methods import ADAPTER_OPTIONS, TRAITS
from entrypoint.settings import Objective, Settings

FOLDER = "presets"
SUFFIX = ".yaml"
NAMES = ("fast", "balanced", "max-quality", "low-memory")
"""Of every objective."""
KEYS = {"options", "set", "parameters", "rows"}
BOUND = "up_to"


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """What a preset sets."""

    options: Mapping[str, Any]
    """Settings by name."""
    overrides: tuple[str, ...]
    """`key=value` of the recipe."""


def path_of(objective: Objective, name: str) -> Path:
    return templates.folder() / FOLDER / f"{objective}-{name}{SUFFIX}"


def read(path: Path, *, parameters: int, rows: int | None) -> Preset:
    """A preset for a model of that size and so many rows.

    Args:
        rows: None takes what is for few.

    Raises:
        SettingsError: the file is missing, or says what no preset can.
    """
    # omegaconf reads YAML 1.2's floats, and takes 0.1 s that `--help` does not
    from omegaconf import OmegaConf

    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise SettingsError(f"the preset cannot be read: {error}", where=path) from error
    if unknown := sorted(found.keys() - KEYS):
        raise SettingsError(f"a preset has no {', '.join(unknown)}", where=path)
    options = {
        **(found.get("options") or {}),
        **_first(found.get("parameters") or [], parameters),
        **_first(found.get("rows") or [], rows or 1),
    }
    if unknown := sorted(options.keys() - Settings.__dataclass_fields__.keys()):
        raise SettingsError(f"there is no option {', '.join(unknown)}", where=path)
    return Preset(
        options=options,
        overrides=tuple(
            # JSON is YAML
            f"{key}={json.dumps(value)}"
            for key, value in found.get("set", {}).items()
        ),
    )


def _first(table: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """The values of the first entry whose bound the number does not exceed."""
    for entry in table:
        if number <= float(entry.get(BOUND, "inf")):
            return {key: value for key, value in entry.items() if key != BOUND}
    return {}


def resolved(settings: Settings, *, parameters: int, rows: int | None) -> Settings:
    """The settings with what their preset sets and the user did not.

    Args:
        parameters: of the model.
        rows: of the training data, if it is known.
    """
    if settings.preset is None:
        return settings
    preset = read(path_of(settings.objective, settings.preset), parameters=parameters, rows=rows)
    options = {
        name: value for name, value in preset.options.items() if name not in settings.explicit
    }
    if not TRAITS[options.get("method", settings.method)].adapter:
        options = {name: value for name, value in options.items() if name not in ADAPTER_OPTIONS}
    given = {text.partition("=")[0].strip() for text in settings.overrides}
    overrides = tuple(text for text in preset.overrides if text.partition("=")[0] not in given)
    return replace(settings, **options, overrides=(*overrides, *settings.overrides))
