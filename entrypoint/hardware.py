"""What this machine has: GPUs as the NVIDIA driver tells, memory, cores; without torch."""

import ctypes
import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

LIBRARY = "libcuda.so.1"
CAPABILITY_MAJOR = 75
CAPABILITY_MINOR = 76
"""CUdevice_attribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
NAME_BYTES = 256
CGROUPS = Path("/sys/fs/cgroup")
CPU_FACTS = Path("/proc/cpuinfo")
CUDA_OF_TORCH = "lib/libtorch_cuda.so"

Build = Literal["cpu", "cuda"]
"""What a torch was built for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A CUDA device, as the driver describes it."""

    name: str
    memory: int
    capability: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """The NVIDIA driver."""

    cuda: tuple[int, int]
    """The newest CUDA that it serves."""
    gpus: tuple[Gpu, ...]
    """Those that this process may see."""


def read_driver(load: Any = ctypes.CDLL) -> Driver | None:
    """The driver and the GPUs that it shows, or None where there is no driver.

    Source: CUDA driver API reference, version and device management.

    Args:
        load: opens a shared library by its name.
    """
    try:
        cuda = load(LIBRARY)
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    served = version.value // 1000, version.value % 1000 // 10
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return Driver(cuda=served, gpus=())
    return Driver(cuda=served, gpus=tuple(_gpu(cuda, number) for number in range(count.value)))


def _gpu(cuda: Any, number: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(NAME_BYTES)
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, NAME_BYTES, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        memory=memory.value,
        capability=(major.value, minor.value),
    )


def torch_build() -> Build:
    """What the installed torch was built for, by its files: it is not imported."""
    found = importlib.util.find_spec("torch")
    folders = (found and found.submodule_search_locations) or ()
    return "cuda" if any((Path(folder) / CUDA_OF_TORCH).exists() for folder in folders) else "cpu"


def peak_memory() -> int:
    """The most memory that this process has held at a time, in bytes.

    On Linux from /proc, since getrusage's figure also has what the parent held when it started us.
    """
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    # unlike the rest of this module, which --help imports, not on every system
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read_memory(folder: Path = CGROUPS, table: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """Memory that there is, and that is free, within the container's limit."""
    try:
        fields = dict(line.split(":", 1) for line in table.read_text().splitlines())
        total, free = (int(fields[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):
        # not Linux
        import psutil

        found = psutil.virtual_memory()
        return int(found.total), int(found.available)
    limit = read_number(folder / "memory.max", folder / "memory/memory.limit_in_bytes")
    used = read_number(folder / "memory.current", folder / "memory/memory.usage_in_bytes")
    if limit is None or limit >= total:
        return total, free
    return int(limit), int(min(free, max(limit - (used or 0), 0)))


def has_bf16(table: Path = CPU_FACTS) -> bool:
    """Whether the CPU has instructions for products of bf16."""
    return not _words(table).isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def is_slow_in_bf16(table: Path = CPU_FACTS) -> bool:
    """Whether the CPU's products of bf16 take longer than those of fp32, conversions included.

    Without instructions for them they do (measured: 17 against 128 GFLOP/s with AVX2 alone), and
    with those of Intel's server CPUs from 2023 on where a virtual machine hides their matrix unit
    (168 against 313); another CPU with AVX-512's had 450 in bf16. False for a CPU that says nothing
    of itself.
    """
    words = _words(table)
    if not has_bf16(table):
        return bool(words)
    matrix_unit = not words.isdisjoint({"amx_bf16", "bf16"})
    return not matrix_unit and {"GenuineIntel", "avx512_fp16"} <= words


def _words(table: Path) -> set[str]:
    try:
        return set(table.read_text("utf-8").split())
    except OSError:
        return set()


def affine_cores() -> int:
    """Cores that this process may run on, whatever share of their time it has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_cores(folder: Path = CGROUPS) -> float:
    """Cores that this process may use, by its affinity and the container's quota."""
    cores = affine_cores()
    quota = read_number(folder / "cpu.max", folder / "cpu/cpu.cfs_quota_us")
    if quota is None or quota <= 0:
        return cores
    if (folder / "cpu.max").is_file():
        period = float((folder / "cpu.max").read_text().split()[1])
    else:
        period = read_number(folder / "cpu/cpu.cfs_period_us") or 100_000.0
    return min(cores, quota / period)


def whole_cores(folder: Path = CGROUPS) -> int:
    """As many threads as do not hinder each other; at least 1."""
    return max(int(read_cores(folder)), 1)


def read_number(*paths: Path) -> float | None:
    """The first number of the first file that is there; None for `max` or without a file."""
    for path in paths:
        try:
            text = path.read_text().split()[0]
        except (OSError, IndexError):
            continue
        return None if text == "max" else float(text)
    return None
