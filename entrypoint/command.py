"""From a plan or a request to the command that carries it out. Pure."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from entrypoint.evaluation.request import Request
from entrypoint.topology import Start, World

ALONE = Start()
"""The one process of its job."""

CHILD_ENVIRONMENT: Mapping[str, str] = {
    # Buffers of every step are of the same sizes: keeping them and backing them by huge pages
    # saves page faults (measured: system time 9.0 s -> 5.9 s in 10 steps, 1.1 times the steps/s).
    "GLIBC_TUNABLES": ":".join(
        (
            "glibc.malloc.hugetlb=1",
            "glibc.malloc.mmap_threshold=33554432",
            "glibc.malloc.trim_threshold=8000000000",
            "glibc.malloc.top_pad=268435456",
        )
    ),
    # Threads that wait sleep soon: endless turns starve whatever else runs on the same cores
    # (measured on 2 cores beside a second such process: 2.6 s a step -> 20 s). Ten thousand turns,
    # some tenths of a millisecond, spare most of the waking up (measured against a thousand: alone
    # 1.3 times the tokens/s, of two runs beside each other 0.66 times).
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "10000",
    # Of products in bf16 oneDNN and torch keep what they have compiled for each shape, 1024 by
    # default, and shapes differ from step to step: a megabyte each. oneDNN's have to last from one
    # layer to the next: with 16 all of a step's 800 are compiled again, which takes 0.25 s on one
    # core while the other waits (measured: 3306 in four steps, 237 with 32, 224 with 48 and more).
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "48",
    "LRU_CACHE_CAPACITY": "16",
    # rows are tokenised in the loop's own process, and a fork after use would only warn
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
"""Variables of training and evaluation processes that the user has not set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """An executable call; no shell is involved."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """What is added to the parent's environment."""

    def __str__(self) -> str:
        """A line to paste into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join((*assignments, shlex.join(self.argv)))


def tune_command(
    recipe: str,
    config: Path,
    world: World,
    environ: Mapping[str, str],
    allocator: Path | None = None,
    start: Start = ALONE,
) -> Command:
    """`tune run` of a recipe, in all processes of this machine.

    Args:
        recipe: its name, for `tune run`.
        config: the rendered file.
        allocator: library to preload, if there is one.
        start: which node this is, and where node 0 is met.
    """
    several: tuple[str, ...] = ()
    if world.ranks > 1:
        several = ("--nproc_per_node", str(world.processes))
    if world.nodes > 1:
        # static: who holds the store follows from the node's number. c10d compares host names for
        # it, which fails in containers and network namespaces (torch 2.8 to 2.13)
        several += (
            "--nnodes", str(world.nodes), "--node_rank", str(start.node),
            "--rdzv_backend", "static", "--rdzv_endpoint", ":".join(map(str, start.master)),
        )  # fmt: skip
    arguments = ("run", *several, recipe, "--config", str(config))
    command = _python("entrypoint.tune", *arguments, environ=environ, allocator=allocator)
    # torchrun would give each process one thread, and torch does not look at a container's quota
    threads = {"OMP_NUM_THREADS": str(max(world.cores // world.processes, 1))}
    wanted = threads if several or world.throttled else {}
    if world.nodes > 1:
        # c10d warns of every peer whose address has no name, as in most container networks
        wanted["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    if world.nodes > 1 and start.interface:
        # gloo would take the interface that the host's name leads to: often loopback
        wanted["GLOO_SOCKET_IFNAME"] = start.interface
    added = {name: value for name, value in wanted.items() if name not in environ}
    return replace(command, environment={**command.environment, **added})


def stock_command(
    arguments: tuple[str, ...], environ: Mapping[str, str], allocator: Path | None = None
) -> Command:
    """torchtune's command line with arguments of the user's; `allocator` as for training."""
    return _python("entrypoint.tune", *arguments, environ=environ, allocator=allocator)


def evaluation_command(
    request: Request, environ: Mapping[str, str], allocator: Path | None = None
) -> Command:
    """The process that scores one checkpoint; `allocator` as for training."""
    module = "entrypoint.evaluation"
    return _python(module, request.to_json(), environ=environ, allocator=allocator)


def tokenizer_command(model: Path) -> Command:
    """The process that has a model's tokenizer remembered, without importing torch."""
    return Command(
        argv=(sys.executable, "-m", "entrypoint.data.tokenizer", str(model)), environment={}
    )


def _python(
    module: str, *arguments: str, environ: Mapping[str, str], allocator: Path | None
) -> Command:
    wanted = {**CHILD_ENVIRONMENT, **({"LD_PRELOAD": str(allocator)} if allocator else {})}
    added = {name: value for name, value in wanted.items() if name not in environ}
    if "OMP_WAIT_POLICY" in environ:
        added.pop("GOMP_SPINCOUNT", None)  # which would overrule it
    return Command(argv=(sys.executable, "-m", module, *arguments), environment=added)
