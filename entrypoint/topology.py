"""The world a run starts in: devices, ranks, number formats; read once, without torch."""

import ctypes
import os
import platform
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from entrypoint.errors import SettingsError
from entrypoint.settings import Device, Dtype

CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
"""From CUdevice_attribute of the CUDA driver API."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Where training runs."""

    device: Literal["cpu", "cuda", "mps"]
    devices: int
    """Devices of that kind on this machine; 1 for a CPU."""
    dtype: Literal["fp32", "bf16"]
    """What weights and activations are computed in."""
    cores: int


def detect(device: Device, dtype: Dtype, environ: Mapping[str, str]) -> World:
    """The world that `device` and `dtype` ask for on this machine.

    Raises:
        SettingsError: the machine lacks the device or the number format, or the environment
            describes more than one process.
    """
    _refuse_several_processes(environ)
    gpus, capability = _cuda_devices() if _torch_has_cuda() else (0, 0)
    chosen = ("cuda" if gpus else "cpu") if device == "auto" else device
    if chosen == "cuda" and not gpus:
        raise SettingsError(
            "there is no CUDA device that the installed torch can use",
            where="--device or TRAIN_DEVICE",
            hint="use --device cpu, or install a driver and a CUDA build of torch",
        )
    if chosen == "mps" and (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        raise SettingsError(
            "mps exists on Apple silicon only", where="--device or TRAIN_DEVICE", hint="use auto"
        )
    fast_bf16 = capability >= 8 if chosen == "cuda" else chosen == "cpu" and _cpu_has_bf16()
    return World(
        device=chosen,
        devices=gpus if chosen == "cuda" else 1,
        dtype=("bf16" if fast_bf16 else "fp32") if dtype == "auto" else dtype,
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
    )


def _refuse_several_processes(environ: Mapping[str, str]) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        if environ.get(name, "1") != "1":
            raise SettingsError(
                f"{name}={environ[name]}: this version trains in one process on one device",
                where=f"the environment variable {name}",
                hint=f"start `train` once, with {name} unset",
            )


def _torch_has_cuda() -> bool:
    """Whether torch is a CUDA build, from its version file: importing torch takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    return runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda") is not None


def _cuda_devices() -> tuple[int, int]:
    """Number of CUDA devices and the lowest compute capability (major) among them.

    Asks the driver, which honours CUDA_VISIBLE_DEVICES; (0, 0) where there is none.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return 0, 0
    majors = []
    for index in range(count.value):
        device, major = ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetAttribute(
            ctypes.byref(major), CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device
        )
        majors.append(major.value)
    return count.value, min(majors)


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware; without, bf16 is several times slower
    than fp32 (measured: 17 against 128 GFLOP/s with AVX2 only)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return False
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})
