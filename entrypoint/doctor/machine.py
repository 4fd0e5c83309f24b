"""Findings on memory, cores, folders, tokens and the job's other processes. Pure."""

from collections.abc import Iterator

from entrypoint.doctor.facts import Facts, Place
from entrypoint.doctor.judgement import Finding, good, note, problem
from entrypoint.units import GIB, gib

MEMORY_LEAST = 3 * GIB
"""Of the built-in model on a CPU."""
ROOM_LEAST = 2 * GIB
"""A demo run and the built-in model take 1.3 GB."""
ROOM_GOOD = 20 * GIB
SCRATCH_LEAST = GIB // 4


def memory(facts: Facts) -> Iterator[Finding]:
    what = f"{gib(facts.memory_free)} free of {gib(facts.memory)}"
    if facts.memory_free < MEMORY_LEAST:
        yield problem(
            "memory",
            what,
            f"even the built-in model needs {gib(MEMORY_LEAST)} on a CPU",
            "end other programs, or give the container more (docker run --memory)",
        )
    else:
        yield good("memory", what, "for the built-in model; --dry-run says what a run needs")


def cores(facts: Facts) -> Iterator[Finding]:
    what = f"{facts.cores_allowed:g} of {facts.cores}"
    if facts.cores_allowed < facts.cores:
        yield note(
            "cores",
            what,
            "by affinity or the container's quota; threads beyond it hinder each other",
            f"OMP_NUM_THREADS={max(int(facts.cores_allowed), 1)}",
        )
    else:
        yield good("cores", what, "all can be used")


def places(facts: Facts) -> Iterator[Finding]:
    yield from _place(
        "outputs",
        facts.outputs,
        "no run can be written here",
        "work in a folder that is yours, or give every run an --output",
    )
    yield from _place(
        "cache",
        facts.cache.place,
        "no model can be written or downloaded",
        "point TRAIN_CACHE at a folder that you may write to",
    )


def _place(check: str, place: Place, without: str, hint: str) -> Iterator[Finding]:
    what = f"{place.path}, {gib(place.free)} free"
    if not place.writable:
        yield problem(check, f"{place.path} cannot be written", without, hint)
    elif place.free < ROOM_LEAST:
        yield problem(
            check, what, f"a small run takes {gib(ROOM_LEAST)}", f"free some room, or {hint}"
        )
    elif place.free < ROOM_GOOD:
        yield note(check, what, "enough for small models only")
    else:
        yield good(check, what, "writable")


def models(facts: Facts) -> Iterator[Finding]:
    found = ", ".join(facts.cache.models) or "none yet"
    yield good(
        "models",
        f"{found}; {gib(facts.cache.used)} in the cache",
        "what is here is not fetched again",
    )
    if facts.offline:
        yield note(
            "hub",
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set",
            "only models and data that are here can be used",
            "unset it to download others",
        )


def scratch(facts: Facts) -> Iterator[Finding]:
    if facts.scratch is None:
        yield problem(
            "temporary files",
            "no folder for them can be written",
            "torch and the evaluation do not start",
            "docker run: --tmpfs /tmp; elsewhere point TMPDIR at a folder",
        )
    elif facts.scratch.free < SCRATCH_LEAST:
        yield problem(
            "temporary files",
            f"{gib(facts.scratch.free)} free in {facts.scratch.path}",
            f"less than {gib(SCRATCH_LEAST)}: processes may fail when they start",
            "free some room, or point TMPDIR elsewhere",
        )
    else:
        what = f"{gib(facts.scratch.free)} free in {facts.scratch.path}"
        yield good("temporary files", what, "writable")


def allocator(facts: Facts) -> Iterator[Finding]:
    if facts.allocator:
        yield good("allocator", str(facts.allocator), "preloaded on a CPU: less time and memory")
    else:
        yield note(
            "allocator",
            "tcmalloc is not installed",
            "training on a CPU takes about a tenth more time",
            "on Debian and Ubuntu: apt-get install libtcmalloc-minimal4",
        )


def tokens(facts: Facts) -> Iterator[Finding]:
    for name, token in facts.tokens.items():
        if token is None:
            yield good(name, "not set", WITHOUT[name])
            continue
        what = "set, by the environment" if token.source == "environment" else "set, by a file"
        if token.clean:
            yield good(name, what, "its value is hidden in all that is written")
        else:
            yield problem(
                name,
                f"{what}, and it holds blanks or quotes",
                "it will be refused: `docker run --env-file` keeps quotes as they are",
                "write the bare token, without quotes",
            )


WITHOUT = {
    "HF_TOKEN": "public models and data sets only",
    "WANDB_API_KEY": "metrics stay in the run folder",
    "MLFLOW_TRACKING_TOKEN": "needed by an MLflow server with accounts only",
    "AZURE_CLIENT_SECRET": "needed to sign in to Azure with a client secret only",
}


def rendezvous(facts: Facts) -> Iterator[Finding]:
    found = facts.rendezvous
    names = ", ".join(f"{name}={value}" for name, value in found.variables.items())
    if found.error:
        first, *rest = found.error.splitlines()
        hint = [line.split("to do:", 1)[1].strip() for line in rest if "to do:" in line]
        yield problem(
            "rendezvous",
            f"{first} ({names})",
            "the processes of the job would not find each other",
            hint[0] if hint else "unset WORLD_SIZE to run in one process",
        )
    elif found.size == 1:
        what = f"one process on one machine{f' ({names})' if names else ''}"
        yield good("rendezvous", what, "no other process is waited for")
    elif not found.master_found:
        yield problem(
            "rendezvous",
            f"{found.master} has no address here",
            f"rank {found.rank} of {found.size} would wait for it in vain",
            "correct MASTER_ADDR, or put both machines into one network",
        )
    else:
        yield good(
            "rendezvous",
            f"rank {found.rank} of {found.size}"
            + (f", {found.nodes} machines" if found.nodes > 1 else ""),
            f"all meet at {found.master}",
        )
