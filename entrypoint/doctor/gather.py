"""Gathers the facts from this machine, its packages and the environment; changes nothing."""

import os
import platform
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

from packaging.utils import canonicalize_name

import entrypoint
from entrypoint import allocator, hub, secrets
from entrypoint.doctor.facts import (
    TOKENS,
    Cache,
    Facts,
    Place,
    Rendezvous,
    Token,
    Torch,
)
from entrypoint.errors import SettingsError
from entrypoint.hardware import read_cores, read_driver, read_memory
from entrypoint.models.embedded.materialise import cache_folder
from entrypoint.run_folder import OUTPUTS
from entrypoint.topology import JOB_VARIABLES, read_start

LOCK = Path(entrypoint.__file__).parents[1] / "requirements.lock"
"""In a checkout and in the image; a wheel has none."""
SHARED_MEMORY = Path("/dev/shm")


def gather(environ: Mapping[str, str]) -> Facts:
    """All facts.

    Args:
        environ: with the secrets of files in it.
    """
    torch, torch_error = read_torch()
    cache = cache_folder(environ)
    models = cache / "models"
    memory, memory_free = read_memory()
    return Facts(
        python=platform.python_version(),
        requirements=read_requirements(),
        installed=read_installed(),
        lock=read_lock(LOCK),
        torch=torch,
        torch_error=torch_error,
        driver=read_driver(),
        wanted_device=environ.get("TRAIN_DEVICE", "auto"),
        visible_devices=environ.get("CUDA_VISIBLE_DEVICES"),
        container=Path("/.dockerenv").exists() or "TRAIN_IMAGE" in environ,
        shared_memory=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None,
        memory=memory,
        memory_free=memory_free,
        cores=os.cpu_count() or 1,
        cores_allowed=read_cores(),
        outputs=look_at(OUTPUTS.absolute()),
        cache=Cache(
            place=look_at(cache),
            used=size_below(cache),
            models=tuple(sorted(path.name for path in models.glob("[!.]*") if path.name != "hub"))
            + tuple(sorted(path.name.replace("--", "/", 1) for path in models.glob("hub/*--*"))),
        ),
        scratch=read_scratch(),
        tokens=read_tokens(environ),
        rendezvous=read_rendezvous(environ),
        offline=hub.is_offline(environ),
        allocator=allocator.find(),
    )


def read_installed(path: Sequence[str] | None = None) -> dict[str, str]:
    """Versions of the packages that are imported: of two, the one that comes first on the path."""
    versions: dict[str, str] = {}
    for found in distributions(path=sys.path if path is None else list(path)):
        versions.setdefault(canonicalize_name(found.metadata["Name"]), found.version)
    return versions


def read_requirements() -> tuple[str, ...]:
    try:
        return tuple(requires("tunecask") or ())
    except PackageNotFoundError:
        return ()


def read_lock(path: Path) -> tuple[str, ...] | None:
    """The requirements of a lock file, or None without one."""
    if not path.is_file():
        return None
    lines = path.read_text("utf-8").splitlines()
    return tuple(line.strip() for line in lines if line[:1].isalnum())


def read_torch() -> tuple[Torch | None, str | None]:
    """What the installed torch is, or why it does not load."""
    try:
        with warnings.catch_warnings():
            # of a driver that is too old: a finding of its own says so
            warnings.simplefilter("ignore")
            import torch

            built_for = torch.version.cuda
            if not built_for:
                return Torch(version=torch.__version__, cuda=None), None
            major, minor = map(int, built_for.split(".")[:2])
            nccl: tuple[int, ...] | None = None
            if torch.distributed.is_nccl_available():
                nccl = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
            return Torch(
                version=torch.__version__,
                cuda=(major, minor),
                usable_gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0,
                architectures=tuple(torch.cuda.get_arch_list()),
                nccl=".".join(map(str, nccl)) if nccl else None,
            ), None
    except (ImportError, OSError, AttributeError) as error:
        return None, str(error)


def look_at(path: Path) -> Place:
    """Whether a folder can be written, or made, and how much room there is."""
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    return Place(
        path=path,
        writable=parent.is_dir() and os.access(parent, os.W_OK | os.X_OK),
        free=shutil.disk_usage(parent).free,
    )


def size_below(folder: Path) -> int:
    """Bytes of all files below a folder; a download that ends meanwhile renames some."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found += path.lstat().st_size
    return found


def read_scratch() -> Place | None:
    try:
        return look_at(Path(tempfile.gettempdir()))
    except FileNotFoundError:
        return None


def read_tokens(environ: Mapping[str, str]) -> dict[str, Token | None]:
    """Which tokens are set, and by what; no value is kept."""
    nothing_set = {secrets.VARIABLE: environ.get(secrets.VARIABLE, "")}
    files = secrets.read_files(nothing_set)
    found: dict[str, Token | None] = {}
    for name in TOKENS:
        value = environ.get(name, "")
        found[name] = (
            Token(
                source="file" if files.get(name) == value else "environment",
                clean=value.isprintable() and not set(value) & set(" \"'"),
            )
            if value
            else None
        )
    return found


def read_rendezvous(environ: Mapping[str, str]) -> Rendezvous:
    variables = {name: environ[name] for name in sorted(environ) if JOB_VARIABLES.fullmatch(name)}
    try:
        start = read_start(environ)
    except SettingsError as error:
        return Rendezvous(variables=variables, error=str(error))
    if start.size == 1:
        return Rendezvous(variables=variables)
    host, port = start.master
    try:
        found = bool(socket.getaddrinfo(host, port))
    except OSError:
        found = False
    return Rendezvous(
        variables=variables,
        nodes=start.nodes,
        size=start.size,
        rank=start.rank,
        master=f"{host}:{port}",
        master_found=found,
    )
