"""Facts of made-up machines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from entrypoint.doctor.facts import (
    TOKENS,
    Cache,
    Facts,
    Place,
    Rendezvous,
    Torch,
)
from entrypoint.hardware import Driver, Gpu

GIB = 1024**3
A100 = Gpu(name="NVIDIA A100 80GB PCIe", memory=80 * GIB, capability=(8, 0))
CUDA_TORCH = Torch(
    version="2.8.0+cu126",
    cuda=(12, 6),
    usable_gpus=2,
    architectures=("sm_80", "sm_90", "compute_90"),
    nccl="2.27.3",
)
LAPTOP = Facts(
    python="3.11.7",
    requirements=("torch<2.14,>=2.8", "peft>=0.21", 'wandb; extra == "wandb"'),
    installed={"torch": "2.13.0+cpu", "peft": "0.21.0", "numpy": "2.2.6"},
    lock=("peft==0.21.0", "numpy==2.2.6 ; python_full_version < '3.99'", "mypy==2.0"),
    torch=Torch(version="2.13.0+cpu", cuda=None),
    torch_error=None,
    driver=None,
    wanted_device="auto",
    visible_devices=None,
    container=False,
    shared_memory=8 * GIB,
    memory=16 * GIB,
    memory_free=12 * GIB,
    cores=4,
    cores_allowed=4,
    outputs=Place(path=Path("/home/me/outputs"), writable=True, free=100 * GIB),
    cache=Cache(
        place=Place(path=Path("/home/me/.cache"), writable=True, free=100 * GIB), used=0, models=()
    ),
    scratch=Place(path=Path("/tmp"), writable=True, free=10 * GIB),
    tokens=dict.fromkeys(TOKENS),
    rendezvous=Rendezvous(variables={}),
    offline=False,
    allocator=Path("/usr/lib/libtcmalloc_minimal.so.4"),
)
WORKSTATION = replace(
    LAPTOP,
    installed={**LAPTOP.installed, "torch": "2.8.0+cu126"},
    torch=CUDA_TORCH,
    driver=Driver(cuda=(12, 8), gpus=(A100, A100)),
)


def laptop(**changes: Any) -> Facts:
    """A machine without a GPU on which all is well."""
    return replace(LAPTOP, **changes)


def workstation(**changes: Any) -> Facts:
    """A machine with two GPUs on which all is well."""
    return replace(WORKSTATION, **changes)
