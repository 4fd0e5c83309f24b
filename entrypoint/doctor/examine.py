"""All checks in order, and their result as text or JSON values. Pure."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from entrypoint.doctor import devices, machine, packages
from entrypoint.doctor.facts import TOKENS, Facts
from entrypoint.doctor.judgement import Finding

REPORT_VERSION = 1
CHECKS = (
    packages.python, packages.packages, packages.torch,
    devices.gpus, devices.nccl, devices.shared_memory,
    machine.memory, machine.cores, machine.places, machine.models, machine.scratch,
    machine.allocator, machine.tokens, machine.rendezvous,
)  # fmt: skip
LEVEL_WIDTH, CHECK_WIDTH = 9, max(map(len, TOKENS)) + 1
"""Of the first two columns; names of tokens are the longest of checks."""
INDENT = " " * (LEVEL_WIDTH + CHECK_WIDTH)
WIDTH = 100


def examine(facts: Facts) -> tuple[Finding, ...]:
    return tuple(finding for check in CHECKS for finding in check(facts))


def problems(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The checks that found one."""
    found = (finding.check for finding in findings if finding.level == "problem")
    return tuple(dict.fromkeys(found))


def as_dict(findings: Sequence[Finding]) -> dict[str, Any]:
    """The report as plain values, for JSON."""
    return {
        "version": REPORT_VERSION,
        "ok": not problems(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def as_text(findings: Sequence[Finding]) -> str:
    """The report for a reader; what is wrong comes with what to do."""
    lines = []
    for finding in findings:
        parts = [f"{finding.what}: {finding.means}"]
        if finding.to_do:
            parts.append(f"to do: {finding.to_do}")
        first = f"{finding.level:<{LEVEL_WIDTH}}{finding.check:<{CHECK_WIDTH}}"
        for part in parts:
            lines += textwrap.wrap(
                part,
                WIDTH,
                initial_indent=first,
                subsequent_indent=INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
            first = INDENT
    return "\n".join((*lines, "" if problems(findings) else "\nno problems"))
