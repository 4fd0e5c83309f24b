"""The figures as JSON and as a table in Markdown."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scripts.bench.measure import Run
from scripts.bench.tasks import OURS, Task

FLOP_PER_WEIGHT = 4
"""For each token, LoRA: two forward, two for the gradient of what comes before; none for the
gradients of frozen weights."""
CLOCKS: Mapping[str, Callable[[Run], float]] = {
    "wall": lambda run: run.tokens_per_second,
    "cpu": lambda run: run.tokens_per_cpu_second,
}
COLUMNS = (
    "task", "contestant", "tokens/s", "ratio", "of limit", "tokens/CPU s", "ratio", "of limit",
    "MB", "loss", "others",
)  # fmt: skip
SHARE = {"wall": "share_of_limit", "cpu": "share_of_limit_by_cpu_time"}
RATIO = {"wall": "ratio_to_best_peer", "cpu": "ratio_by_cpu_time"}


def summary(
    task: Task,
    runs: Mapping[str, Sequence[Run]],
    peaks: Sequence[float],
    weights: int,
    threads: int,
) -> dict[str, Any]:
    """A task's figures: medians over the rounds.

    By CPU time other processes on the machine hardly count. A process that waits for its own
    threads without sleeping spends more of it, so ratios by CPU time mean most with one thread.

    Args:
        runs: of each contestant, one for each round.
        peaks: GFLOP/s of the fastest matrix product, of each round.
        weights: of the model, the tied output head counted once.
        threads: that each contestant and the matrix product use.
    """
    speed = {
        name: statistics.median(run.tokens_per_second for run in found)
        for name, found in runs.items()
    }
    peers = [name for name in runs if name != OURS]
    best = max(peers, key=lambda name: speed[name]) if peers else None
    limits = [peak * 1e9 / (FLOP_PER_WEIGHT * weights) for peak in peaks]
    found: dict[str, Any] = {
        "task": task.name,
        "goal": task.goal,
        "gemm_gflops": statistics.median(peaks),
        "limit_tokens_per_second": statistics.median(limits),
        "best_peer": best,
        "ratio_to_best_peer": None,
        "ratio_by_cpu_time": None,
        "share_of_limit": None,
        "share_of_limit_by_cpu_time": None,
        "contestants": {
            name: {
                "tokens_per_second": speed[name],
                "tokens_per_cpu_second": statistics.median(
                    run.tokens_per_cpu_second for run in found
                ),
                "peak_bytes": max(run.peak_bytes for run in found),
                "loss": statistics.median(run.loss for run in found),
                "others": statistics.median(run.others for run in found),
                "rounds": [run.to_json() for run in found],
            }
            for name, found in runs.items()
        },
    }
    if OURS in runs:
        ours = runs[OURS]
        for name, clock in CLOCKS.items():
            cores = threads if name == "cpu" else 1
            share, ratio = SHARE[name], RATIO[name]
            found[share] = statistics.median(
                clock(run) * cores / limit for run, limit in zip(ours, limits, strict=True)
            )
            if peers:
                # of each round by itself, so that a busy minute changes both sides
                found[ratio] = statistics.median(
                    clock(own) / max(clock(runs[peer][number]) for peer in peers)
                    for number, own in enumerate(ours)
                )
    return found


def table(results: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """Markdown, one table for all tasks.

    Args:
        names: what each contestant is called.
    """
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for result in results:
        for name, found in result["contestants"].items():
            own = result if name == OURS else {}
            wall, cpu = (
                f"{_number(own.get(RATIO[clock]), '.2f')} | {_number(own.get(SHARE[clock]), '.0%')}"
                for clock in CLOCKS
            )
            lines.append(
                f"| {result['task']} | {names[name]} | {found['tokens_per_second']:.0f} | {wall} "
                f"| {found['tokens_per_cpu_second']:.0f} | {cpu} "
                f"| {found['peak_bytes'] / 1e6:.0f} | {found['loss']:.3f} "
                f"| {found['others']:.0%} |"
            )
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
