"""One run of one contestant: started, waited for, and turned into figures."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.bench.contestants import Steps, command, cores, environment, steps_of
from scripts.bench.tasks import Job

WARM_UP = 2
"""Steps that are not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Figures of one training run."""

    tokens_per_second: float
    """Tokens that are no padding, in the loop's steps after the first two."""
    tokens_per_cpu_second: float
    """The same by the process's CPU time, which other processes hardly change."""
    peak_bytes: int
    """Most resident memory of the training process, up to the end of its last step."""
    loss: float
    """Mean of the steps that are counted."""
    others: float
    """Share of the machine's CPU time that other processes took meanwhile."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(peer: str, python: Path, job: Job, lengths: Sequence[int]) -> Run:
    """Train once.

    Args:
        lengths: tokens of each row, in order.

    Raises:
        SystemExit: the contestant failed; its output is named.
    """
    job.folder.mkdir(parents=True)
    argv, log = command(peer, python, job), job.folder / "output.txt"
    start, busy, own = time.monotonic(), _busy(), _children()
    with log.open("wb") as output:
        ended = subprocess.run(
            argv, cwd=job.folder, env=environment(os.environ), stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    wall, busy, own = time.monotonic() - start, _busy() - busy, _children() - own
    if ended.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"{peer} failed with exit code {ended.returncode}; {log} ends:\n{tail}")
    others = max(busy - own, 0) / (wall * cores())
    return figures(steps_of(peer, job), job.task.rows_per_step, lengths, others)


def figures(steps: Steps, rows_per_step: int, lengths: Sequence[int], others: float) -> Run:
    """From what a contestant noted to what the table shows."""
    made = len(steps) - 1
    if made <= WARM_UP:
        raise SystemExit(f"{made} steps are too few: the first {WARM_UP} are not counted")
    counted = lengths[WARM_UP * rows_per_step : made * rows_per_step]
    losses = [step["loss"] for step in steps[WARM_UP + 1 :]]
    took = {clock: steps[-1][clock] - steps[WARM_UP][clock] for clock in ("time", "cpu")}
    return Run(
        tokens_per_second=sum(counted) / took["time"],
        tokens_per_cpu_second=sum(counted) / took["cpu"],
        peak_bytes=int(max(step["peak"] for step in steps[1:])),
        loss=sum(losses) / len(losses),
        others=others,
    )


def gemm_peak(python: Path, dtype: str) -> float:
    """GFLOP/s of the fastest matrix product, now."""
    worker = Path(__file__).with_name("workers") / "gemm.py"
    ended = subprocess.run(
        (str(python), str(worker), dtype), capture_output=True, text=True, check=True
    )
    return float(ended.stdout)


def _busy() -> float:
    """Seconds that all cores together have worked since the machine started."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system
