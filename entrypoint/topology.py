"""The world a run starts in: devices, ranks, number formats; read once, without torch."""

import platform
import re
import runpy
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from entrypoint import hardware
from entrypoint.errors import SettingsError
from entrypoint.settings import Device, Dtype

SIOCGIFADDR = 0x8915
"""Of Linux: the IPv4 address of an interface; see netdevice(7)."""

JOB_VARIABLES = re.compile(
    r"(LOCAL_|GROUP_|ROLE_|NODE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE"
    r"|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*"
)
"""What torchrun and Azure ML say of the other processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """How this process was started: alone, once on each node, or once for each GPU."""

    rank: int = 0
    """Among all processes of `train` in the job."""
    size: int = 1
    """How many of them there are."""
    node: int = 0
    nodes: int = 1
    local_rank: int = 0
    local_size: int | None = None
    """How many were started on each node; None when there is one that starts the others."""
    settled: bool = True
    """Whether nodes are known; if not they are when all have met."""
    master: tuple[str, int] = ("localhost", 0)
    """Address of the machine of rank zero, and a port of it that is free or torchrun's."""
    interface: str | None = None
    """Network interface that the other nodes are reached by, when they have met."""

    @property
    def leads_node(self) -> bool:
        """Whether this is the process that starts training on its node."""
        return self.local_rank == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Where training runs."""

    device: Literal["cpu", "cuda", "mps"]
    devices: int
    """Devices of that kind on this machine; 1 for a CPU."""
    dtype: Literal["fp32", "bf16"]
    """What weights and activations are computed in."""
    cores: int
    """Whole ones, by affinity and the container's quota."""
    throttled: bool = False
    """Whether the quota is below the cores that torch would start threads for."""
    processes: int = 1
    """That train on this machine."""
    nodes: int = 1
    """Machines that train together, each with as many processes."""

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return self.processes * self.nodes


def read_start(environ: Mapping[str, str]) -> Start:
    """How this process was started, from the variables that torchrun and Azure ML set.

    With LOCAL_RANK there is a process for each GPU and WORLD_SIZE counts processes; without it
    there is one on each node, and WORLD_SIZE counts nodes.

    Raises:
        SettingsError: a variable is missing, not a number, or does not fit the others.
    """
    size = _number(environ, "WORLD_SIZE", least=1, default=1)
    if size == 1:
        return Start()
    if not environ.get("MASTER_ADDR"):
        raise _bad("MASTER_ADDR", "is not set", "set it to the address of the machine of rank 0")
    master = environ["MASTER_ADDR"], _number(environ, "MASTER_PORT", least=1, most=65_535)
    if "LOCAL_RANK" not in environ:
        name = "NODE_RANK" if "NODE_RANK" in environ else "RANK"
        node = _number(environ, name, most=size - 1)
        return Start(rank=node, size=size, node=node, nodes=size, master=master)
    rank = _number(environ, "RANK", most=size - 1)
    local_rank = _number(environ, "LOCAL_RANK", most=size - 1)
    start = Start(rank=rank, size=size, local_rank=local_rank, settled=False, master=master)
    if "LOCAL_WORLD_SIZE" not in environ:
        # Azure ML does not set it
        return start
    return settle(start, _number(environ, "LOCAL_WORLD_SIZE", least=1, most=size))


def settle(start: Start, local_size: int) -> Start:
    """A process among those that were started for each GPU, as soon as it is known how many each
    node has. A node's only one starts the others, as where one was started for each node.

    Raises:
        SettingsError: the numbers do not fit together.
    """
    rank, size, local_rank = start.rank, start.size, start.local_rank
    if size % local_size:
        raise _bad(
            "LOCAL_WORLD_SIZE",
            f"is {local_size}, which does not divide WORLD_SIZE={size}",
            "every node must start the same number of processes",
        )
    if rank % local_size != local_rank:
        raise _bad(
            "LOCAL_RANK",
            f"is {local_rank}, but RANK={rank} is number {rank % local_size} of its node",
            "number the ranks node by node",
        )
    return replace(
        start,
        node=rank // local_size,
        nodes=size // local_size,
        local_size=None if local_size == 1 else local_size,
        settled=True,
    )


def alone(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what it says of other processes of the job."""
    return {name: value for name, value in environ.items() if not JOB_VARIABLES.fullmatch(name)}


def _number(
    environ: Mapping[str, str],
    name: str,
    *,
    least: int = 0,
    most: int | None = None,
    default: int | None = None,
) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    bounds = f"from {least}" + ("" if most is None else f" to {most}")
    hint = f"set it to a whole number {bounds}, or unset WORLD_SIZE to run in one process"
    if text is None:
        raise _bad(name, "is not set, but WORLD_SIZE says that there are several processes", hint)
    if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
        raise _bad(name, f"is {text!r}", hint)
    return int(text)


def _bad(name: str, what: str, hint: str) -> SettingsError:
    return SettingsError(f"{name} {what}", where=f"the environment variable {name}", hint=hint)


def detect(device: Device, dtype: Dtype) -> World:
    """The world that `device` and `dtype` ask for on this machine, of one process.

    Raises:
        SettingsError: the machine lacks the device or the number format.
    """
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
    fast_bf16 = capability >= 8 if chosen == "cuda" else chosen == "cpu" and hardware.has_bf16()
    return World(
        device=chosen,
        devices=gpus if chosen == "cuda" else 1,
        dtype=("bf16" if fast_bf16 else "fp32") if dtype == "auto" else dtype,
        cores=hardware.whole_cores(),
        throttled=hardware.whole_cores() < hardware.affine_cores(),
    )


def trained_by(world: World, start: Start, wanted: int | None) -> World:
    """The world with its training processes: as many as were started on this machine, as wanted,
    or one for each GPU.

    Raises:
        SettingsError: the numbers disagree, there are fewer GPUs, or a device is alone by nature.
    """
    option = "--nproc-per-node or TRAIN_NPROC_PER_NODE"
    if start.local_size and wanted not in (None, start.local_size):
        raise SettingsError(
            f"{wanted} processes are asked for, and {start.local_size} were started",
            where=f"{option}, and the environment variable LOCAL_WORLD_SIZE",
            hint="leave the option out where each process is started by itself",
        )
    gpus = world.devices if world.device == "cuda" else 0
    processes = start.local_size or wanted or gpus or 1
    if gpus and processes > gpus:
        raise SettingsError(
            f"{processes} processes need as many GPUs, and there are {gpus}", where=option
        )
    if processes * start.nodes > 1 and world.device == "mps":
        raise SettingsError("mps has one device, for one process", where=option)
    return replace(world, processes=processes, nodes=start.nodes)


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has an IPv4 address; None for an unknown one."""
    wanted = address.removeprefix("::ffff:")
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for _, name in socket.if_nameindex():
                request = name.encode()[:15].ljust(40, b"\0")
                try:
                    answer = fcntl.ioctl(any_socket, SIOCGIFADDR, request)
                except OSError:
                    continue
                if socket.inet_ntoa(answer[20:24]) == wanted:
                    return name
    except (ImportError, OSError):
        return None
    return None


def _torch_has_cuda() -> bool:
    """Whether torch is a CUDA build, from its version file: importing torch takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    return runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda") is not None


def _cuda_devices() -> tuple[int, int]:
    """Number of CUDA devices and the lowest compute capability (major) among them; (0, 0) where
    there is none. The driver honours CUDA_VISIBLE_DEVICES."""
    driver = hardware.read_driver()
    gpus = driver.gpus if driver else ()
    return len(gpus), min((gpu.capability[0] for gpu in gpus), default=0)
