"""Two hosts, in network namespaces, that train one job."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import entrypoint
from tests.e2e.conftest import Process, wait_for
from tests.e2e.test_ranks import ended, free_port
from tests.namespaces import Host, two_hosts
from tests.recipes import few_rows, losses

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 and not os.environ.get("CI"), reason="network namespaces need root"
    ),
]

STEPS = 15
"""Enough for a kill after the first to come before the last: they take a twentieth of a second."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    with two_hosts() as found:
        yield found


class Job:
    """One run on both hosts, each with a cache and a working directory of its own."""

    def __init__(self, hosts: list[Host], folder: Path, model: Path) -> None:
        self.hosts, self.folder, self.model = hosts, folder, model
        self.rows = folder / "rows.jsonl"
        self.output = folder / "run"
        self.metrics = self.output / "logs" / "metrics.jsonl"
        data = Path(few_rows(folder / "data", train=60))
        self.rows.write_text((data / "train.jsonl").read_text())
        (folder / "held.jsonl").write_text((data / "eval.jsonl").read_text())
        self.port = 0

    def argv(self, *more: object) -> tuple[object, ...]:
        return (
            sys.executable, "-m", "entrypoint", "sft", "--model", self.model, "--data", self.rows,
            "--max-seq-len", 256, "--batch-size", 2, "--lr", 3e-3, "--dtype", "fp32",
            "--output", self.output, *more,
        )  # fmt: skip

    def start(self, *more: object, per_gpu: bool = False, **environment: str) -> list[Process]:
        """Once on each host, or as one process of each GPU."""
        self.port = free_port()
        return [self._start(node, more, per_gpu, environment) for node in range(2)]

    def _start(
        self, node: int, more: tuple[object, ...], per_gpu: bool, environment: dict[str, str]
    ) -> Process:
        place = self.folder / f"host-{node}"
        place.mkdir(exist_ok=True)
        started = {"WORLD_SIZE": "2", "NODE_RANK": str(node)}
        if per_gpu:
            # as Azure ML: the number of a node's processes is not said
            started |= {"RANK": str(node), "LOCAL_RANK": "0"}
        return subprocess.Popen(
            self.hosts[node].argv(*self.argv(*more)),
            cwd=place,
            env=os.environ
            | started
            | {
                "MASTER_ADDR": self.hosts[0].address,
                "MASTER_PORT": str(self.port),
                "TRAIN_CACHE": str(place / "cache"),
                "PYTHONPATH": str(Path(entrypoint.__file__).parents[1]),
                "OMP_NUM_THREADS": "1",
            }
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def steps(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def after(self, step: int) -> Callable[[], bool]:
        return lambda: self.metrics.is_file() and self.metrics.read_text().count("\n") >= step

    def worker(self, node: int) -> int:
        """The training process of a host, as soon as torchrun has started it."""
        found: list[int] = []

        def look() -> bool:
            for pid in self.hosts[node].processes():
                with suppress(OSError):
                    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
                    if {f"RANK={node}", "TORCHELASTIC_MAX_RESTARTS=0"} <= set(variables):
                        found.append(pid)
            return bool(found)

        wait_for(look)
        return found[0]

    def nothing_is_left(self) -> None:
        wait_for(lambda: not any(host.processes() for host in self.hosts), 10)


@pytest.fixture
def job(hosts: list[Host], tmp_path: Path, tiny_model: Path) -> Iterator[Job]:
    job = Job(hosts, tmp_path, tiny_model)
    yield job
    for host in hosts:
        for pid in host.processes():
            os.kill(pid, signal.SIGKILL)


def both(started: list[Process], within: float = 240) -> tuple[list[int], list[str]]:
    """Exit codes and outputs of the two nodes."""
    found = [ended(process, within) for process in started]
    return [code for code, _ in found], [said for _, said in found]


def test_two_hosts_learn_what_two_local_processes_learn(job: Job, tmp_path: Path):
    """Started as one process of each GPU, killed in the middle, resumed by a start on each host."""
    given = ("--max-steps", STEPS, "--save-every", 1, "--resume", "auto")
    started = job.start(*given, per_gpu=True)
    worker = job.worker(1)
    wait_for(lambda: any((job.output / "checkpoints").glob("step_*")))
    os.kill(worker, signal.SIGKILL)
    killed = time.monotonic()
    codes, said = both(started, within=60)
    assert time.monotonic() - killed < 60
    assert codes == [7, 7], said
    assert "Error: node 1 failed: rank 1 failed first, with exit code -9" in said[0]
    assert "Error: rank 1 failed first, with exit code -9" in said[1]
    assert "Traceback" not in "".join(said)
    job.nothing_is_left()
    done = len(job.steps())
    assert done < STEPS

    codes, said = both(job.start(*given))
    assert codes == [0, 0], said
    assert "resumed after step" in said[0]
    assert f"steps   {STEPS} of 4 rows" in said[0]
    assert "2 processes on 2 nodes" in said[0]
    assert "node 1 has trained" in said[1]
    assert "loss" not in said[1], "one node speaks for all"
    # each host has prepared the rows in its own cache, and only the first has written the run
    assert all(list((tmp_path / f"host-{node}" / "cache").glob("datasets/*")) for node in (0, 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data", "held.jsonl", "host-0", "host-1", "rows.jsonl", "run",
    ]  # fmt: skip
    two_hosts, final = job.steps(), weights(job.output)
    assert [step["step"] for step in two_hosts] == list(range(1, STEPS + 1))

    job.output.rename(tmp_path / "nodes")
    alone = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    local = subprocess.run(
        tuple(map(str, job.argv("--max-steps", STEPS, "--nproc-per-node", 2))),
        env=alone | {"OMP_NUM_THREADS": "1", "TRAIN_CACHE": str(tmp_path / "local")},
        capture_output=True,
        text=True,
    )
    assert local.returncode == 0, local.stdout + local.stderr
    assert losses(two_hosts) == pytest.approx(losses(job.steps()), abs=1e-5)
    assert_close(final, weights(job.output))


def test_a_host_that_is_cut_off_ends_the_job_on_both(job: Job):
    started = job.start("--epochs", 2000)
    wait_for(job.after(1))
    job.hosts[1].unplug()
    cut = time.monotonic()
    try:
        codes, said = both(started, within=60)
        assert time.monotonic() - cut < 60
        assert codes == [7, 7], said
        assert "Error: node 1 died" in said[0]
        assert "out of reach" in said[0]
        assert "Error: node 0 died" in said[1]
        assert "Traceback" not in "".join(said)
        job.nothing_is_left()
    finally:
        job.hosts[1].plug_in()


def test_143_a_signal_to_one_host_saves_what_both_have_learned(job: Job):
    started = job.start("--epochs", 2000, "--grace", 120)
    wait_for(job.after(1))
    # `ip netns exec` has become `train`
    started[1].send_signal(signal.SIGTERM)
    codes, said = both(started)
    assert codes == [143, 143], said
    assert "a checkpoint is saved" in said[0]
    assert "checkpoints are node 0's" in said[1]
    assert "Traceback" not in "".join(said)
    saved = [path.name for path in (job.output / "checkpoints").glob("step_*")]
    assert saved == [f"step_{len(job.steps())}"]


def weights(output: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(output / "final" / "model-00001-of-00001.safetensors")


def assert_close(one: Any, other: Any) -> None:
    import torch

    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-5)
