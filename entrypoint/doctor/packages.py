"""Findings on Python, torch and the other packages. Pure."""

from collections.abc import Iterator, Mapping

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from entrypoint.doctor.facts import Facts
from entrypoint.doctor.judgement import Finding, good, note, problem

SHOWN = 6
"""Packages that one line names."""
REINSTALL = "make setup installs the locked ones; in an image, build it again"


def python(facts: Facts) -> Iterator[Finding]:
    version = tuple(map(int, facts.python.split(".")[:2]))
    if (3, 10) <= version <= (3, 12):
        yield good("python", facts.python, "within 3.10 to 3.12, which everything was tried with")
    else:
        yield problem(
            "python",
            facts.python,
            "torchtune and its neighbours were tried with 3.10 to 3.12 only",
            "make setup PYTHON=python3.12",
        )


def packages(facts: Facts) -> Iterator[Finding]:
    """Direct requirements against their ranges, and all that is installed against the lock."""
    wanted = _applicable(facts.requirements)
    unfit = [
        f"{requirement.name} {facts.installed.get(canonicalize_name(requirement.name), 'missing')}"
        f" (needed: {requirement.specifier or 'any'})"
        for requirement in wanted
        # which has a finding of its own
        if requirement.name != "torch" and not _fits(requirement, facts.installed)
    ]
    if not wanted:
        yield problem(
            "packages",
            "tunecask is not installed as a package",
            "what it needs is unknown, so nothing could be compared",
            "make setup, or python -m pip install --no-deps -e .",
        )
    elif unfit:
        yield problem(
            "packages",
            _names(unfit),
            "commands that need them fail, or compute something else",
            REINSTALL,
        )
    if facts.lock is None:
        yield note(
            "lock",
            "no requirements.lock beside the code",
            "only the ranges of direct requirements could be compared",
        )
        return
    locked = _applicable(facts.lock)
    others = [
        f"{requirement.name} {facts.installed[canonicalize_name(requirement.name)]}"
        f" (locked: {str(requirement.specifier).removeprefix('==')})"
        for requirement in locked
        if canonicalize_name(requirement.name) in facts.installed
        and not _fits(requirement, facts.installed)
    ]
    count = sum(canonicalize_name(requirement.name) in facts.installed for requirement in locked)
    if others:
        yield note(
            "lock",
            _names(others),
            f"{len(others)} of {count} packages are not the versions that were tested together",
            REINSTALL,
        )
    elif not unfit:
        yield good("lock", f"{count} packages", "in the versions that were tested together")


def torch(facts: Facts) -> Iterator[Finding]:
    if facts.torch is None:
        yield problem(
            "torch",
            f"torch cannot be imported: {facts.torch_error}",
            "nothing can be trained, evaluated or quantized",
            REINSTALL,
        )
        return
    built = "a CPU build"
    if facts.torch.cuda:
        built = f"built for CUDA {facts.torch.cuda[0]}.{facts.torch.cuda[1]}"
    what = f"{facts.torch.version}, {built}"
    ranges = [
        requirement
        for requirement in map(Requirement, facts.requirements)
        if requirement.name == "torch"
    ]
    if all(_fits(requirement, {"torch": facts.torch.version}) for requirement in ranges):
        yield good("torch", what, "within the range that torchtune and torchao were tried with")
    else:
        yield problem(
            "torch",
            what,
            f"outside of {ranges[0].specifier}: torchtune or torchao may not import",
            "python -m pip install -r requirements-torch.txt; for an image: LIFT_TORCH=yes",
        )


def _applicable(requirements: tuple[str, ...]) -> list[Requirement]:
    """Those that are for this Python and system, and for no extra."""
    return [
        requirement
        for requirement in map(Requirement, requirements)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]


def _fits(requirement: Requirement, installed: Mapping[str, str]) -> bool:
    version = installed.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _names(items: list[str]) -> str:
    rest = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
