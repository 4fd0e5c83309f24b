"""entrypoint.topology: what the environment and the machine say."""

import pytest

from entrypoint import hardware, topology
from entrypoint.errors import SettingsError
from entrypoint.topology import Start


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with so many GPUs of a compute capability, and a CPU with or without bf16."""

    def build(gpus: int = 0, capability: int = 0, cpu_bf16: bool = False) -> None:
        monkeypatch.setattr(topology, "_torch_has_cuda", lambda: gpus > 0)
        monkeypatch.setattr(topology, "_cuda_devices", lambda: (gpus, capability))
        monkeypatch.setattr(hardware, "has_bf16", lambda: cpu_bf16)

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
    world = topology.detect("auto", "auto")
    assert (world.device, world.dtype, world.devices) == (device, dtype, max(gpus, 1))


def test_what_is_asked_for_wins(machine):
    machine(gpus=1, capability=8)
    world = topology.detect("cpu", "bf16")
    assert (world.device, world.dtype) == ("cpu", "bf16")


def test_a_containers_quota_counts_for_cores(machine, monkeypatch):
    machine()
    monkeypatch.setattr(topology.hardware, "affine_cores", lambda: 8)
    monkeypatch.setattr(topology.hardware, "read_cores", lambda *_: 2.5)
    world = topology.detect("cpu", "fp32")
    assert (world.cores, world.throttled) == (2, True)
    monkeypatch.setattr(topology.hardware, "read_cores", lambda *_: 8)
    world = topology.detect("cpu", "fp32")
    assert (world.cores, world.throttled) == (8, False)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(machine, monkeypatch, device):
    machine()
    monkeypatch.setattr(topology.platform, "system", lambda: "Linux")
    with pytest.raises(SettingsError, match="TRAIN_DEVICE"):
        topology.detect(device, "auto")


CPU = topology.World(device="cpu", devices=1, dtype="fp32", cores=8)
MPS = topology.World(device="mps", devices=1, dtype="fp32", cores=8)
GPUS = topology.World(device="cuda", devices=4, dtype="bf16", cores=8)


@pytest.mark.parametrize(
    ("world", "started", "wanted", "processes"),
    [
        (CPU, None, None, 1),
        (CPU, None, 2, 2),
        (CPU, 4, None, 4),
        (CPU, 4, 4, 4),
        (GPUS, None, None, 4),
        (GPUS, None, 1, 1),
        (GPUS, 2, None, 2),
    ],
)
def test_so_many_processes_train_as_were_started_or_wanted(world, started, wanted, processes):
    start = Start(local_size=started, size=started or 1)
    assert topology.trained_by(world, start, wanted).processes == processes


def test_nodes_train_together_with_as_many_processes_each():
    world = topology.trained_by(GPUS, Start(nodes=3, size=3), None)
    assert (world.processes, world.nodes, world.ranks) == (4, 3, 12)


def test_the_interface_of_an_address_of_this_machine():
    assert topology.interface_of("127.0.0.1") == topology.interface_of("::ffff:127.0.0.1") == "lo"
    assert topology.interface_of("192.0.2.1") is None


@pytest.mark.parametrize(
    ("world", "start", "wanted", "why"),
    [
        (CPU, Start(local_size=4, size=4), 2, "2 processes are asked for, and 4 were started"),
        (GPUS, Start(), 5, "5 processes need as many GPUs, and there are 4"),
        (MPS, Start(), 2, "mps"),
        (MPS, Start(nodes=2, size=2), None, "mps"),
    ],
)
def test_processes_that_cannot_be_are_refused(world, start, wanted, why):
    with pytest.raises(SettingsError, match=why):
        topology.trained_by(world, start, wanted)


def test_cuda_is_read_from_torchs_version_file_without_importing_torch():
    import torch

    assert topology._torch_has_cuda() == (torch.version.cuda is not None)


MASTER = {"MASTER_ADDR": "node-0", "MASTER_PORT": "29500"}


def test_once_on_each_node():
    found = topology.read_start({"WORLD_SIZE": "3", "NODE_RANK": "2", **MASTER})
    assert found == Start(rank=2, size=3, node=2, nodes=3, master=("node-0", 29500))
    assert found == topology.read_start({"WORLD_SIZE": "3", "RANK": "2", **MASTER})


def test_once_for_each_gpu():
    environ = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "6", "LOCAL_RANK": "2", **MASTER}
    assert topology.read_start(environ) == Start(
        rank=6, size=8, node=1, nodes=2, local_rank=2, local_size=4, master=("node-0", 29500)
    )


def test_once_for_each_gpu_as_azure_ml_says_it():
    """Without the number of a node's processes."""
    environ = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "NODE_RANK": "1", **MASTER}
    found = topology.read_start(environ)
    assert not found.settled
    assert topology.settle(found, 2) == Start(
        rank=3, size=4, node=1, nodes=2, local_rank=1, local_size=2, master=("node-0", 29500)
    )


def test_the_only_process_of_a_node_starts_the_others():
    environ = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0", **MASTER}
    once_a_node = topology.read_start({"WORLD_SIZE": "2", "NODE_RANK": "1", **MASTER})
    assert topology.settle(topology.read_start(environ), 1) == once_a_node
    assert topology.read_start({**environ, "LOCAL_WORLD_SIZE": "1"}) == once_a_node


@pytest.mark.parametrize("environ", [{}, {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}])
def test_without_other_processes_there_is_one(environ):
    assert topology.read_start(environ) == Start()


@pytest.mark.parametrize(
    ("name", "environ"),
    [
        ("WORLD_SIZE", {"WORLD_SIZE": "two"}),
        ("WORLD_SIZE", {"WORLD_SIZE": "0"}),
        ("MASTER_ADDR", {"WORLD_SIZE": "2", "RANK": "0"}),
        ("MASTER_PORT", {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "x"}),
        ("MASTER_PORT", {"WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "70000"}),
        ("RANK", {"WORLD_SIZE": "2", **MASTER}),
        ("NODE_RANK", {"WORLD_SIZE": "2", "NODE_RANK": "2", **MASTER}),
        ("RANK", {"WORLD_SIZE": "2", "LOCAL_RANK": "0", **MASTER}),
        (
            "LOCAL_WORLD_SIZE",
            {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3", **MASTER},
        ),
        (
            "LOCAL_RANK",
            {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", **MASTER},
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(name, environ):
    with pytest.raises(SettingsError) as refused:
        topology.read_start(environ)
    assert refused.value.what.startswith(f"{name} ")
    assert refused.value.where == f"the environment variable {name}"
    assert refused.value.hint


def test_what_we_start_hears_nothing_of_the_other_processes():
    environ = {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "GROUP_RANK": "0", "ROLE_NAME": "x",
        "TORCHELASTIC_RUN_ID": "1", **MASTER,
    }  # fmt: skip
    assert topology.alone({**environ, "HF_TOKEN": "t", "GROUP_ID": "g"}) == {
        "HF_TOKEN": "t",
        "GROUP_ID": "g",
    }
