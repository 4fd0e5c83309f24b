"""entrypoint.hardware: GPUs by a made-up driver, memory and cores by made-up files."""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from entrypoint import hardware
from entrypoint.hardware import Driver, Gpu, read_driver, torch_build


class FakeCuda:
    """Answers as libcuda does: by writing through pointers and returning an error code."""

    def __init__(self, version: int = 12080, devices: int = 2, fails: bool = False) -> None:
        self.version, self.devices, self.fails = version, devices, fails

    def cuInit(self, _: int) -> int:
        return 100 if self.fails else 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: ctypes.c_int) -> int:
        name.value = f"GPU {device.value}".encode()[:length]
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, _: ctypes.c_int) -> int:
        memory._obj.value = 16 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _: ctypes.c_int) -> int:
        value._obj.value = {75: 8, 76: 6}[attribute]
        return 0


def test_the_driver_names_its_gpus():
    gpu = Gpu(name="GPU 1", memory=16 << 30, capability=(8, 6))
    driver = read_driver(lambda _: FakeCuda())
    assert driver is not None
    assert driver.cuda == (12, 8)
    assert driver.gpus[1:] == (gpu,)


def test_a_driver_that_shows_no_gpu_is_still_a_driver():
    assert read_driver(lambda _: FakeCuda(fails=True)) == Driver(cuda=(12, 8), gpus=())


def test_without_a_driver_there_is_none():
    def missing(_: str) -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert read_driver(missing) is None


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 4194304 kB\nMemFree: 1 kB\nMemAvailable: 3145728 kB\n")
    return path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (4 << 30, 3 << 30)),
        ({"memory.max": "max", "memory.current": "5"}, (4 << 30, 3 << 30)),
        ({"memory.max": str(2 << 30), "memory.current": str(1 << 30)}, (2 << 30, 1 << 30)),
        ({"memory/memory.limit_in_bytes": str(1 << 30)}, (1 << 30, 1 << 30)),
        ({"memory/memory.limit_in_bytes": str((1 << 63) - 4096)}, (4 << 30, 3 << 30)),
    ],
)
def test_memory_is_what_the_container_allows(
    tmp_path: Path, table: Path, files: dict[str, str], expected: tuple[int, int]
):
    assert hardware.read_memory(write(tmp_path / "cgroup", files), table) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
    ],
)
def test_cores_are_what_the_container_allows(
    tmp_path: Path, files: dict[str, str], expected: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    folder = write(tmp_path, files)
    assert hardware.read_cores(folder) == expected
    assert hardware.whole_cores(folder) == max(int(expected), 1)


CPUS = {
    "AMD, Zen 4": ("vendor_id : AuthenticAMD flags : fpu avx512f avx512_bf16", True, False),
    "Intel with AMX": ("GenuineIntel avx512_bf16 avx512_fp16 amx_bf16 amx_tile", True, False),
    "Intel, AMX hidden": ("vendor_id : GenuineIntel flags : avx512_bf16 avx512_fp16", True, True),
    "Intel, Cooper Lake": ("vendor_id : GenuineIntel flags : avx512f avx512_bf16", True, False),
    "AVX2 alone": ("vendor_id : GenuineIntel flags : fpu avx2 fma", False, True),
    "ARM with bf16": ("Features : fp asimd svebf16 i8mm bf16", True, False),
    "ARM without": ("Features : fp asimd atomics", False, True),
    "unknown": ("", False, False),
}


@pytest.mark.parametrize("name", CPUS)
def test_what_a_cpu_is_good_at_is_read_from_its_flags(name: str, tmp_path: Path):
    text, has, slow = CPUS[name]
    table = tmp_path / "cpuinfo"
    table.write_text(text)
    assert hardware.has_bf16(table) is has
    assert hardware.is_slow_in_bf16(table) is slow


def test_a_machine_without_the_table_says_nothing(tmp_path: Path):
    assert not hardware.has_bf16(tmp_path / "none")
    assert not hardware.is_slow_in_bf16(tmp_path / "none")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the figure is Linux's")
def test_the_peak_of_a_process_is_without_that_of_its_parent():
    held = bytearray(200 << 20)
    code = "from entrypoint.hardware import peak_memory; print(peak_memory())"
    ended = subprocess.run((sys.executable, "-c", code), capture_output=True, check=True)
    assert 1 << 20 < int(ended.stdout) < len(held)
    assert hardware.peak_memory() > len(held)


@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_what_torch_was_built_for_is_seen_by_its_files(
    build: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("__init__.py", "lib/libtorch_cpu.so", f"lib/libtorch_{build}.so"):
        (tmp_path / "torch" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "torch" / name).write_text("raise SystemExit('it is imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert torch_build() == build
