"""The command that runs a run again, from what its manifest says. Pure."""

import shlex
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from entrypoint.settings import Settings

NAMES = {"overrides": "--set", "gates": "--gate"}
LEFT_OUT = ("objective", "output", "resume", "dry_run", "seed")
"""What a second run does not repeat, or the command says itself."""


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
        if value is True:
            words.append(option)
        elif name in NAMES:
            words += [word for item in value for word in (option, str(item))]
        elif isinstance(value, (list, tuple)):
            words += [option, ",".join(map(str, value))]
        else:
            words += [option, str(value)]
    return shlex.join([*words, "--seed", str(seed)])
