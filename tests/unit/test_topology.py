"""entrypoint.topology: what the environment and the machine say."""

import pytest

from entrypoint import topology
from entrypoint.errors import SettingsError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with so many GPUs of a compute capability, and a CPU with or without bf16."""

    def build(gpus: int = 0, capability: int = 0, cpu_bf16: bool = False) -> None:
        monkeypatch.setattr(topology, "_torch_has_cuda", lambda: gpus > 0)
        monkeypatch.setattr(topology, "_cuda_devices", lambda: (gpus, capability))
        monkeypatch.setattr(topology, "_cpu_has_bf16", lambda: cpu_bf16)

    return build


@pytest.mark.parametrize(
    ("gpus", "capability", "cpu_bf16", "device", "dtype"),
    [
        (0, 0, False, "cpu", "fp32"),
        (0, 0, True, "cpu", "bf16"),
        (2, 8, False, "cuda", "bf16"),
        (1, 7, True, "cuda", "fp32"),
    ],
)
def test_auto_takes_the_best_there_is(machine, gpus, capability, cpu_bf16, device, dtype):
    machine(gpus, capability, cpu_bf16)
    world = topology.detect("auto", "auto", {})
    assert (world.device, world.dtype, world.devices) == (device, dtype, max(gpus, 1))


def test_what_is_asked_for_wins(machine):
    machine(gpus=1, capability=8)
    world = topology.detect("cpu", "bf16", {})
    assert (world.device, world.dtype) == ("cpu", "bf16")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(machine, monkeypatch, device):
    machine()
    monkeypatch.setattr(topology.platform, "system", lambda: "Linux")
    with pytest.raises(SettingsError, match="TRAIN_DEVICE"):
        topology.detect(device, "auto", {})


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_WORLD_SIZE"])
def test_several_processes_are_refused_by_name(machine, name):
    machine()
    with pytest.raises(SettingsError, match=f"{name}=2"):
        topology.detect("auto", "auto", {name: "2"})
    topology.detect("auto", "auto", {name: "1"})


def test_cuda_is_read_from_torchs_version_file_without_importing_torch():
    import torch

    assert topology._torch_has_cuda() == (torch.version.cuda is not None)
