"""What a VM size has: asked of Azure where it can be, else from the documented table."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from entrypoint import machines
from entrypoint.errors import SettingsError
from entrypoint.machines import SIZES, Size

GB_PER_CORE = {"d": 4, "e": 8, "f": 2}
"""GiB, of the families for general purposes, much memory, and computing."""
WITH_CORES = re.compile(
    r"standard_(?:([de])(\d+)[a-z]*_v[3-9]|(f)(\d+)[a-z]*_v[2-9])", re.IGNORECASE
)
"""Sizes whose names say the number of their cores."""


def documented(name: str) -> Size:
    """A size from the table, without asking Azure.

    Raises:
        SettingsError: it is not in it, nor of a family without GPUs.
    """
    found = machines.documented(name)
    if found is None:
        raise unknown(name)
    return found if found.gpus else replace(found, memory_gb=_memory_of(name))


def _memory_of(name: str) -> float | None:
    found = WITH_CORES.fullmatch(name)
    if found is None:
        return None
    family, cores = found[1] or found[3], int(found[2] or found[4])
    return GB_PER_CORE[family.lower()] * cores


def listed(name: str, answer: Iterable[Any]) -> Size:
    """A size from what `compute.list_sizes` says; what its GPUs are is from the table.

    Raises:
        SettingsError: the region does not have it.
    """
    for each in answer:
        if str(each.name).lower() == name.lower():
            known = SIZES.get(name.lower(), Size(name=str(each.name), gpus=0))
            return replace(known, gpus=int(each.gpus or 0), memory_gb=each.memory_gb)
    raise unknown(name, "in the workspace's region")


def unknown(name: str, where: str = "without asking Azure") -> SettingsError:
    return SettingsError(
        f"the VM size {name} is not known {where}",
        where="--size or AML_SIZE",
        hint="with GPUs: " + ", ".join(size.name for size in SIZES.values()),
    )
