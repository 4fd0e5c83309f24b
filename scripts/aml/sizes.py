"""What a VM size has: asked of Azure where it can be, else from the documented table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from entrypoint.errors import SettingsError


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One machine."""

    name: str
    gpus: int
    gpu_gb: int | None = None
    """Memory of each GPU."""
    memory_gb: float | None = None
    """Of the machine; None where only Azure knows."""
    bf16: bool = True
    """Whether its GPUs multiply bf16."""


TABLE = {
    size.name.lower(): size
    for size in (
        Size(name="Standard_NC24ads_A100_v4", gpus=1, gpu_gb=80),
        Size(name="Standard_NC48ads_A100_v4", gpus=2, gpu_gb=80),
        Size(name="Standard_NC96ads_A100_v4", gpus=4, gpu_gb=80),
        Size(name="Standard_NC40ads_H100_v5", gpus=1, gpu_gb=94),
        Size(name="Standard_NC80adis_H100_v5", gpus=2, gpu_gb=94),
        Size(name="Standard_ND96isr_H100_v5", gpus=8, gpu_gb=80),
        Size(name="Standard_ND96isr_H200_v5", gpus=8, gpu_gb=141),
        Size(name="Standard_NC4as_T4_v3", gpus=1, gpu_gb=16, bf16=False),
        Size(name="Standard_NC8as_T4_v3", gpus=1, gpu_gb=16, bf16=False),
        Size(name="Standard_NC16as_T4_v3", gpus=1, gpu_gb=16, bf16=False),
        Size(name="Standard_NC64as_T4_v3", gpus=4, gpu_gb=16, bf16=False),
        Size(name="Standard_NV36ads_A10_v5", gpus=1, gpu_gb=24),
        Size(name="Standard_NV36adms_A10_v5", gpus=1, gpu_gb=24),
        Size(name="Standard_NV72ads_A10_v5", gpus=2, gpu_gb=24),
    )
}
"""Sizes with GPUs, from Azure's documentation of its virtual machines."""

WITHOUT_GPU = re.compile(r"standard_(d|ds|e|es|f|fs|b|m|a|l|hb|hc)\d[\w-]*", re.IGNORECASE)
"""Families that have no GPU."""


def documented(name: str) -> Size:
    """A size from the table, without asking Azure.

    Raises:
        SettingsError: it is not in it, nor of a family without GPUs.
    """
    if name.lower() in TABLE:
        return TABLE[name.lower()]
    if WITHOUT_GPU.fullmatch(name):
        return Size(name=name, gpus=0)
    raise unknown(name)


def listed(name: str, answer: Iterable[Any]) -> Size:
    """A size from what `compute.list_sizes` says; memory of its GPUs from the table.

    Raises:
        SettingsError: the region does not have it.
    """
    for each in answer:
        if str(each.name).lower() == name.lower():
            known = TABLE.get(name.lower(), Size(name=str(each.name), gpus=0))
            return replace(known, gpus=int(each.gpus or 0), memory_gb=each.memory_gb)
    raise unknown(name, "in the workspace's region")


def unknown(name: str, where: str = "without asking Azure") -> SettingsError:
    return SettingsError(
        f"the VM size {name} is not known {where}",
        where="--size or AML_SIZE",
        hint="with GPUs: " + ", ".join(size.name for size in TABLE.values()),
    )
