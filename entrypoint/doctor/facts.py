"""What `train doctor` looks at, as plain values; sizes are in bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from entrypoint.hardware import Driver

TOKENS = ("HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "AZURE_CLIENT_SECRET")
"""Secrets that something here reads."""

TokenSource = Literal["environment", "file"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Torch:
    """The installed torch, as it answers when it is imported."""

    version: str
    cuda: tuple[int, int] | None
    """The CUDA that it was built for; None for a CPU build."""
    usable_gpus: int = 0
    architectures: tuple[str, ...] = ()
    """What its kernels are compiled for: sm_80, or compute_90 for any later one."""
    nccl: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder that is written to."""

    path: Path
    writable: bool
    free: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """What the cache holds."""

    place: Place
    used: int
    models: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A secret that is set. Its value is not kept."""

    source: TokenSource
    clean: bool
    """Without blanks and quotes, which no token has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendezvous:
    """How the job's other processes are found."""

    variables: Mapping[str, str]
    error: str | None = None
    """Why they make no job, if so."""
    nodes: int = 1
    size: int = 1
    rank: int = 0
    master: str | None = None
    master_found: bool = True
    """Whether the master's name has an address."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that is known of the machine and of what is installed."""

    python: str
    requirements: tuple[str, ...]
    """Of the project, with their ranges of versions."""
    installed: Mapping[str, str]
    """Versions by normalised name."""
    lock: tuple[str, ...] | None
    """Its requirements; None where there is none beside the code."""
    torch: Torch | None
    torch_error: str | None
    driver: Driver | None
    wanted_device: str
    visible_devices: str | None
    container: bool
    shared_memory: int | None
    memory: int
    """What this process may use: of the machine or of its container."""
    memory_free: int
    cores: int
    cores_allowed: float
    """By the container's quota."""
    outputs: Place
    cache: Cache
    scratch: Place | None
    """For temporary files; None when there is no folder for them."""
    tokens: Mapping[str, Token | None]
    rendezvous: Rendezvous
    offline: bool
    allocator: Path | None
