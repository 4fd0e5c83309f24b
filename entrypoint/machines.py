"""What machines have, memory and speed: this one, GPUs by name, and Azure's VM sizes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from entrypoint import hardware
from entrypoint.errors import SettingsError
from entrypoint.topology import World
from entrypoint.units import GIB

GB = 10**9
TFLOPS = 10**12

USABLE_OF_GPU = 0.97
"""Share of a GPU's memory that is planned with: a display or the driver may take some of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A kind of GPU, as its data sheet has it."""

    name: str
    memory: int
    """Bytes."""
    fp32: float
    """Peak TFLOP/s of matrix products in fp32; in TF32 where the GPU has it and torch would not
    use it by itself, this is the plain fp32 figure."""
    bf16: float | None
    """The same in bf16, dense; None for a GPU that has no bf16 arithmetic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A size of Azure's virtual machines."""

    name: str
    gpus: int
    gpu: Gpu | None = None
    """None for no GPU, or for one that only Azure knows."""
    memory_gb: float | None = None
    """Of the machine; None where only Azure knows."""

    @property
    def bf16(self) -> bool:
        """Whether its GPUs multiply bf16."""
        return self.gpu is None or self.gpu.bf16 is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a plan is held against: one node."""

    name: str
    device: Literal["cpu", "cuda", "mps"]
    devices: int
    memory: int | None
    """Bytes that training gets: of each GPU, or of the whole machine for a CPU; None for
    unknown."""
    peaks: Mapping[str, float]
    """Number format -> FLOP/s of each device; without those that are not known."""
    bf16: bool
    """Whether bf16 is a format of its hardware."""
    slow_in_bf16: bool = False
    """Whether bf16 is computed in fp32 there, as on some CPUs (`tune/products.py`)."""
    build: hardware.Build = "cpu"
    """What its torch was built for, which says what imports take on a CPU."""


def _gpu(name: str, gib: float, fp32: float, bf16: float | None) -> Gpu:
    return Gpu(name=name, memory=int(gib * GIB), fp32=fp32, bf16=bf16)


GPUS: Mapping[str, Gpu] = {
    gpu.name.lower(): gpu
    for gpu in (
        _gpu("T4", 15, 8.1, None),
        _gpu("V100-16GB", 16, 14, None),
        _gpu("V100-32GB", 32, 14, None),
        _gpu("RTX-3090", 24, 35.6, 71),
        _gpu("RTX-4090", 24, 82.6, 165),
        _gpu("RTX-5090", 32, 104.8, 209.5),
        _gpu("RTX-A6000", 48, 38.7, 154.8),
        _gpu("A10", 22.5, 31.2, 125),
        _gpu("A10G", 22.5, 31.2, 70),
        _gpu("L4", 22.5, 30.3, 121),
        _gpu("L40S", 45, 91.6, 362),
        _gpu("A100-40GB", 40, 19.5, 312),
        _gpu("A100-80GB", 80, 19.5, 312),
        _gpu("H100-80GB", 80, 67, 989),
        _gpu("H100-NVL", 94, 60, 835),
        _gpu("H200", 141, 67, 989),
        _gpu("B200", 180, 75, 2250),
    )
}
"""Memory as the driver shows it, GiB; peak TFLOP/s from NVIDIA's data sheets, dense. A10G (AWS) is
an A10 with fewer tensor cores."""

SIZES: Mapping[str, Size] = {
    size.name.lower(): size
    for size in (
        Size(name="Standard_NC24ads_A100_v4", gpus=1, gpu=GPUS["a100-80gb"]),
        Size(name="Standard_NC48ads_A100_v4", gpus=2, gpu=GPUS["a100-80gb"]),
        Size(name="Standard_NC96ads_A100_v4", gpus=4, gpu=GPUS["a100-80gb"]),
        Size(name="Standard_NC40ads_H100_v5", gpus=1, gpu=GPUS["h100-nvl"]),
        Size(name="Standard_NC80adis_H100_v5", gpus=2, gpu=GPUS["h100-nvl"]),
        Size(name="Standard_ND96isr_H100_v5", gpus=8, gpu=GPUS["h100-80gb"]),
        Size(name="Standard_ND96isr_H200_v5", gpus=8, gpu=GPUS["h200"]),
        Size(name="Standard_NC4as_T4_v3", gpus=1, gpu=GPUS["t4"]),
        Size(name="Standard_NC8as_T4_v3", gpus=1, gpu=GPUS["t4"]),
        Size(name="Standard_NC16as_T4_v3", gpus=1, gpu=GPUS["t4"]),
        Size(name="Standard_NC64as_T4_v3", gpus=4, gpu=GPUS["t4"]),
        Size(name="Standard_NV36ads_A10_v5", gpus=1, gpu=GPUS["a10"]),
        Size(name="Standard_NV36adms_A10_v5", gpus=1, gpu=GPUS["a10"]),
        Size(name="Standard_NV72ads_A10_v5", gpus=2, gpu=GPUS["a10"]),
    )
}
"""Sizes with GPUs, from Azure's documentation of its virtual machines."""

WITHOUT_GPU = re.compile(r"standard_(d|ds|e|es|f|fs|b|m|a|l|hb|hc)\d[\w-]*", re.IGNORECASE)
"""Families of sizes that have no GPU."""

GROUPS = {"gpus": GPUS, "azure": SIZES}
"""Names for all machines of a table."""


def this_machine(world: World) -> Machine:
    """The machine that training would run on, as `topology.detect` found it."""
    memory: int | None = None
    name = {"cpu": "this machine, CPU", "mps": "this machine, mps"}.get(world.device, "")
    peaks: dict[str, float] = {}
    if world.device == "cuda":
        driver = hardware.read_driver()
        found = driver.gpus if driver else ()
        memory = int(min(gpu.memory for gpu in found) * USABLE_OF_GPU) if found else None
        name = f"this machine, {found[0].name if found else 'CUDA'}"
        known = next((gpu for gpu in GPUS.values() if found and _is(gpu, found[0])), None)
        peaks = _peaks(known) if known else {}
    else:
        _, memory = hardware.read_memory()
    return Machine(
        name=name,
        device=world.device,
        devices=world.devices,
        memory=memory,
        peaks=peaks,
        bf16=world.dtype == "bf16",
        slow_in_bf16=world.device == "cpu" and hardware.is_slow_in_bf16(),
        build=hardware.torch_build(),
    )


def _is(gpu: Gpu, found: hardware.Gpu) -> bool:
    """Whether the driver's name and memory are those of a GPU of the table."""
    words = [word for word in _words(gpu.name) if not word.endswith("GB")]
    there = _words(found.name)
    near = abs(found.memory - gpu.memory) < gpu.memory * 0.08
    return near and any(there[start : start + len(words)] == words for start in range(len(there)))


def _words(name: str) -> list[str]:
    return name.upper().replace("-", " ").split()


def named(name: str, gpus: int | None = None) -> tuple[Machine, ...]:
    """The machines that a name stands for: a GPU, a VM size, or all of a group.

    Args:
        gpus: how many GPUs of that name one machine has; one unless said.

    Raises:
        SettingsError: there is no such one.
    """
    if name.lower() in GROUPS:
        return tuple(machine for each in GROUPS[name.lower()] for machine in named(each, gpus))
    if gpu := GPUS.get(name.lower()):
        return (_of_gpu(gpu.name, gpu, gpus or 1),)
    size = documented(name)
    if size is None:
        raise SettingsError(
            f"{name} is neither a GPU nor a VM size that is known here",
            where="--on",
            hint=f"GPUs: {', '.join(gpu.name for gpu in GPUS.values())}; VM sizes: "
            f"{', '.join(size.name for size in SIZES.values())}; this, gpus, azure",
        )
    if size.gpu is None:
        raise SettingsError(
            f"{size.name} has no GPU, and how fast it is and what memory it has is not known here",
            where="--on",
            hint="plan on such a machine itself: --on this",
        )
    return (_of_gpu(size.name, size.gpu, size.gpus),)


def _of_gpu(name: str, gpu: Gpu, count: int) -> Machine:
    return Machine(
        name=name if count == 1 or name != gpu.name else f"{count} x {name}",
        device="cuda",
        devices=count,
        memory=int(gpu.memory * USABLE_OF_GPU),
        peaks=_peaks(gpu),
        bf16=gpu.bf16 is not None,
    )


def _peaks(gpu: Gpu) -> dict[str, float]:
    peaks = {"fp32": gpu.fp32 * TFLOPS}
    return peaks | ({"bf16": gpu.bf16 * TFLOPS} if gpu.bf16 else {})


def documented(name: str) -> Size | None:
    """A VM size from the table, without asking Azure; None for one that is not in it, nor of a
    family without GPUs."""
    if name.lower() in SIZES:
        return SIZES[name.lower()]
    return Size(name=name, gpus=0) if WITHOUT_GPU.fullmatch(name) else None
