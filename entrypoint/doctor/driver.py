"""Asks the NVIDIA driver for its devices, without torch."""

import ctypes
from typing import Any

from entrypoint.doctor.facts import Driver, Gpu

LIBRARY = "libcuda.so.1"
CAPABILITY_MAJOR = 75
CAPABILITY_MINOR = 76
"""CUdevice_attribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
NAME_BYTES = 256


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
