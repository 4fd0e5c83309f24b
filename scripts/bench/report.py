"""The figures as JSON and as a table in Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.bench.measure import Run
from scripts.bench.tasks import OURS, Task

FLOP_PER_WEIGHT = 4
"""For each token, LoRA: two forward, two for the gradient of what comes before; none for the
gradients of frozen weights."""


def summary(
    task: Task, runs: Mapping[str, Sequence[Run]], peaks: Sequence[float], weights: int
) -> dict[str, Any]:
    """A task's figures: medians over the rounds.

    Args:
        runs: of each contestant, one for each round.
        peaks: GFLOP/s of the fastest matrix product, of each round.
        weights: of the model, the tied output head counted once.
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
        "share_of_limit": None,
        "contestants": {
            name: {
                "tokens_per_second": speed[name],
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
        found["share_of_limit"] = statistics.median(
            run.tokens_per_second / limit for run, limit in zip(ours, limits, strict=True)
        )
        if peers:
            # of each round by itself, so that a busy minute changes both sides
            found["ratio_to_best_peer"] = statistics.median(
                own.tokens_per_second / max(runs[name][number].tokens_per_second for name in peers)
                for number, own in enumerate(ours)
            )
    return found


def table(results: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """Markdown, one table for all tasks.

    Args:
        names: what each contestant is called.
    """
    lines = [
        "| task | contestant | tokens/s | ratio | of limit | peak memory, MB | loss | others |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for name, found in result["contestants"].items():
            ratio = share = "-"
            if name == OURS:
                ratio = _number(result["ratio_to_best_peer"], ".2f")
                share = _number(result["share_of_limit"], ".0%")
            lines.append(
                f"| {result['task']} | {names[name]} | {found['tokens_per_second']:.0f} | {ratio} "
                f"| {share} | {found['peak_bytes'] / 1e6:.0f} | {found['loss']:.3f} "
                f"| {found['others']:.0%} |"
            )
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
