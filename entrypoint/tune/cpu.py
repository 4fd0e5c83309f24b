"""Lets the recipes that torchtune 0.6.1 ships run on a CPU; each of them was written for CUDA.

Four patches, of what is missing alone. tests/unit/tune/test_cpu.py fails on the day one of them is
no longer needed.
"""

import functools
from importlib.metadata import version
from typing import Any

from entrypoint.hardware import peak_memory
from entrypoint.units import GIB

TORCHTUNE = "0.6.1"
"""The release whose recipes these patches are for, and upstream's last."""
DONE: list[str] = []
"""The release that was patched in this process."""


def apply() -> None:
    """Patch torch and torchtune in this process; with a GPU, or again, it changes nothing."""
    import torch

    if version("torchtune") != TORCHTUNE or torch.cuda.is_available() or DONE:
        return
    DONE.append(TORCHTUNE)
    _meet_by_gloo()
    _measure_memory()
    for name in ("empty_cache", "reset_peak_memory_stats"):
        # recipes call them in the namespace of whatever device they run on; a CPU has no cache
        if not hasattr(torch.cpu, name):
            setattr(torch.cpu, name, lambda *_: None)


def _meet_by_gloo() -> None:
    """The distributed recipes but full_finetune ask for `cuda:nccl,cpu:gloo`, which a CPU build of
    torch refuses."""
    import torch.distributed as dist

    stock = dist.init_process_group

    @functools.wraps(stock)
    def init_process_group(backend: str | None = None, *more: Any, **named: Any) -> None:
        stock("gloo" if backend and "nccl" in backend else backend, *more, **named)

    dist.init_process_group = init_process_group


def _measure_memory() -> None:
    """`get_memory_stats` raises on a CPU, and recipes call it all the same. The most memory that
    the process has had stands for all three figures, which differ on a GPU alone."""
    from torchtune import training
    from torchtune.training import memory

    stock = training.get_memory_stats

    @functools.wraps(stock)
    def get_memory_stats(device: Any, reset_stats: bool = True) -> dict[str, float]:
        if device.type != "cpu":
            found: dict[str, float] = stock(device, reset_stats)
            return found
        peak = peak_memory() / GIB
        return dict.fromkeys(
            ("peak_memory_active", "peak_memory_alloc", "peak_memory_reserved"), peak
        )

    training.get_memory_stats = memory.get_memory_stats = get_memory_stats
