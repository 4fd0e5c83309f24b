"""The command that runs a run again, from what its manifest says. Pure."""

import shlex
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from entrypoint.settings import Settings

REPEATED = {"overrides": "--set", "gates": "--gate"}
"""Options that are given once for each value."""
NAMES = {**REPEATED, "quantize_methods": "--quantize-method"}
LEFT_OUT = ("objective", "output", "resume", "dry_run", "seed", "preset", "explicit")
"""What a second run does not repeat, the command says itself, or is in what a preset has set."""


def command(settings: Mapping[str, Any], seed: int) -> str:
    """`train …` with every option that is not its default, and the seed.

    Args:
        settings: as in manifest.json.
    """
    words = ["train", str(settings["objective"])]
    fields = Settings.__dataclass_fields__
    for name, value in settings.items():
        field = fields.get(name)
        if field is None or name in LEFT_OUT or value in (None, (), []):
            continue
        if field.default is not MISSING and value == field.default:
            continue
        option = NAMES.get(name, f"--{name.replace('_', '-')}")
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif name in REPEATED:
            words += [word for item in value for word in (option, str(item))]
        elif isinstance(value, (list, tuple)):
            words += [option, ",".join(map(str, value))]
        else:
            words += [option, str(value)]
    return shlex.join([*words, "--seed", str(seed)])
