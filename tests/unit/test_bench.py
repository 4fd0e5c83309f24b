"""scripts/bench: the rows, the figures, and what the table says of them."""

import os
import statistics
import sys
from pathlib import Path

import pytest

from scripts.bench import environments, report, rows
from scripts.bench.measure import Run, figures
from scripts.bench.tasks import OURS, TASKS
from scripts.bench_start import first_step


def run(speed: float, loss: float = 1.0) -> Run:
    return Run(
        tokens_per_second=speed,
        tokens_per_cpu_second=speed / 4,
        peak_bytes=int(speed) * 1000,
        loss=loss,
        others=0.5,
    )


def test_rows_are_the_same_each_time_and_vary_in_length():
    made = rows.generate()
    assert made == rows.generate()
    words = [len(row.answer.split()) for row in made]
    assert len(made) == 512
    assert max(words) > 3 * statistics.median(words)
    assert all(row.answer != row.wrong for row in made)


def test_the_largest_of_the_steps_comes_first_and_the_others_stay_in_order():
    made = rows.generate()
    found = rows.largest_first(made, rows_per_step=8, steps=12)
    sizes = [len(row.question + row.answer) for row in found]
    steps = [sum(sizes[start : start + 8]) for start in range(0, 12 * 8, 8)]
    assert max(steps) == steps[0]
    at = made.index(found[0])
    assert 0 < at < 12 * 8
    assert found == made[at : at + 8] + made[:at] + made[at + 8 :]


def test_the_first_two_steps_are_not_counted():
    clock = [
        {"time": time, "cpu": 2 * time, "peak": 10 * time, "loss": 9.0} for time in (0, 50, 90)
    ]
    clock += [{"time": time, "cpu": 2 * time, "peak": 7, "loss": 2.0} for time in (91, 94)]
    found = figures(clock, rows_per_step=2, lengths=[1000] * 4 + [30, 10, 20, 60], others=0.1)
    assert (found.tokens_per_second, found.tokens_per_cpu_second) == (30, 15)
    assert (found.peak_bytes, found.loss, found.others) == (900, 2.0, 0.1)
    with pytest.raises(SystemExit, match="too few"):
        figures(clock[:3], rows_per_step=2, lengths=[1] * 8, others=0)


def test_ratios_are_to_the_best_peer_of_the_same_round():
    runs = {OURS: [run(300), run(100), run(80)], "trl": [run(100), run(20), run(20)],
            "litgpt": [run(50), run(50), run(10)]}  # fmt: skip
    found = report.summary(TASKS[0], runs, peaks=[400.0, 400.0, 200.0], weights=10**8, threads=2)
    assert found["best_peer"] == "litgpt"
    assert found["ratio_to_best_peer"] == 3
    # 1,000, 1,000 and 500 tokens a second; by CPU time those of one of the two threads
    assert found["share_of_limit"] == pytest.approx(0.16)
    assert found["share_of_limit_by_cpu_time"] == pytest.approx(0.08)
    assert found["contestants"]["trl"]["peak_bytes"] == 100_000
    table = report.table([found], {name: name.upper() for name in runs})
    assert "| TUNECASK | 100 | 3.00 | 16% | 25 | 3.00 | 8% |" in table
    alone = report.summary(TASKS[0], {OURS: [run(1)]}, peaks=[1.0], weights=1, threads=1)
    assert alone["ratio_to_best_peer"] is None


def test_every_peer_of_a_task_is_pinned():
    for peer in {peer for task in TASKS for peer in task.peers}:
        assert all(name in environments.version_of(peer) for name in environments.PACKAGES[peer])


def test_a_start_is_timed_with_all_its_processes(tmp_path: Path):
    metrics = tmp_path / "run" / "logs" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    busy = "import time\nwhile time.process_time() < 0.4: pass\n"
    child = f"{busy}open({str(metrics)!r}, 'w').write('{{}}\\n'); time.sleep(1)"
    code = f"import subprocess, sys; {busy}subprocess.run((sys.executable, '-c', {child!r}))"
    wall, cpu = first_step((sys.executable, "-c", code), dict(os.environ), tmp_path / "run")
    assert wall > 0.7
    assert cpu > 0.7
    with pytest.raises(SystemExit, match="made no step"):
        first_step((sys.executable, "-c", ""), dict(os.environ), tmp_path / "none")
