"""Findings on GPUs, the driver, and what several GPUs need. Pure."""

from collections.abc import Iterator

from entrypoint.doctor.facts import Facts, Torch
from entrypoint.doctor.judgement import Finding, good, note, problem
from entrypoint.hardware import Driver
from entrypoint.units import GIB, gib

SHARED_MEMORY_LEAST = 1 * GIB
"""For several GPUs: NCCL takes some hundred MB of it on a machine with eight."""
CONTAINER_HINT = "in Docker: docker compose run --rm train, or docker run --gpus all"
CUDA_BUILD_HINT = "install a CUDA build of torch from 2.8 to 2.13, or use the image"


def gpus(facts: Facts) -> Iterator[Finding]:
    driver, torch = facts.driver, facts.torch
    if driver is None or not driver.gpus:
        yield from _no_gpu(facts)
        return
    names = ", ".join(f"{gpu.name} with {gib(gpu.memory)}" for gpu in driver.gpus)
    what = f"{len(driver.gpus)}: {names}"
    if torch is None:
        return
    if torch.cuda is None:
        yield problem(
            "gpus", what, "torch is a CPU build, so they would not be used", CUDA_BUILD_HINT
        )
        return
    yield from _driver(driver, torch)
    unserved = [gpu for gpu in driver.gpus if not serves(torch.architectures, gpu.capability)]
    if unserved:
        gpu = unserved[0]
        yield problem(
            "gpus",
            f"{gpu.name} has compute capability {gpu.capability[0]}.{gpu.capability[1]}",
            f"this torch has kernels for {', '.join(torch.architectures)} only",
            "install a torch build that serves the GPU, or hide it with CUDA_VISIBLE_DEVICES",
        )
    elif torch.usable_gpus < len(driver.gpus):
        yield problem(
            "gpus",
            what,
            f"torch can use {torch.usable_gpus} of them",
            "see the finding on the driver; restart the container if the driver was updated",
        )
    elif len(driver.gpus) == 1:
        yield good("gpus", what, "training runs on it")
    else:
        yield good("gpus", what, "training runs in one process on each")


def _no_gpu(facts: Facts) -> Iterator[Finding]:
    what = "none" if facts.driver is None else "the driver shows none"
    if facts.visible_devices is not None and facts.driver is not None:
        what += f" (CUDA_VISIBLE_DEVICES={facts.visible_devices!r})"
    hint = CONTAINER_HINT if facts.container else "install the NVIDIA driver if there is a GPU"
    if facts.wanted_device == "cuda":
        yield problem("gpus", what, "TRAIN_DEVICE asks for cuda, so every run is refused", hint)
    else:
        yield note("gpus", what, "runs take the CPU, which is right for small models only", hint)


def _driver(driver: Driver, torch: Torch) -> Iterator[Finding]:
    assert torch.cuda is not None
    what = f"serves CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    needs = f"torch was built for {torch.cuda[0]}.{torch.cuda[1]}"
    if driver.cuda >= torch.cuda:
        yield good("driver", what, f"{needs}, which it serves")
    elif driver.cuda[0] == torch.cuda[0]:
        yield note(
            "driver",
            what,
            f"{needs}: all but kernels compiled at run time work within a major version",
            "update the driver when such an error shows",
        )
    else:
        yield problem(
            "driver",
            what,
            f"{needs}, a later major version: no GPU can be used",
            f"update the driver, or install a torch built for CUDA {driver.cuda[0]}",
        )


def serves(architectures: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether compiled kernels run on a device.

    `sm_XY` runs on devices of the same major version from X.Y on, `compute_XY` on all later ones.
    Source: CUDA C++ programming guide, application compatibility.
    """
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        number = "".join(character for character in digits if character.isdigit())
        if not number:
            continue
        built = int(number[:-1]), int(number[-1])
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return not architectures


def nccl(facts: Facts) -> Iterator[Finding]:
    """What GPUs talk to each other by; of interest with several of them or several nodes."""
    torch = facts.torch
    if torch is None or torch.cuda is None:
        yield good("nccl", "not used", "processes on a CPU talk by gloo")
    elif torch.nccl is None:
        what, means = "torch was built without it", "several GPUs cannot train together"
        if torch.usable_gpus > 1:
            yield problem("nccl", what, means, CUDA_BUILD_HINT)
        else:
            yield note("nccl", what, means)
    else:
        yield good("nccl", torch.nccl, "several GPUs and nodes can train together")


def shared_memory(facts: Facts) -> Iterator[Finding]:
    if facts.shared_memory is None:
        yield note("shared memory", "there is no /dev/shm", "several GPUs use slower ways")
        return
    what = f"{gib(facts.shared_memory)} in /dev/shm"
    if facts.shared_memory >= SHARED_MEMORY_LEAST:
        yield good("shared memory", what, "enough for several processes")
    elif facts.torch is not None and facts.torch.usable_gpus > 1:
        yield problem(
            "shared memory",
            what,
            "NCCL may fail with 'unhandled system error' when several GPUs train",
            "docker compose sets it; docker run: --shm-size 8g; Azure ML: shm_size: 8g",
        )
    else:
        yield note("shared memory", what, "enough for one process; several GPUs need 1 GiB or more")
