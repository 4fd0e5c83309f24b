"""Several processes of one job: one download, one fate."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from entrypoint.zero_first import free_port
from tests.e2e.conftest import MIB, NAME, WEIGHTS, Launcher, Process, wait_for
from tests.hub_server import HubServer, Repo

pytestmark = pytest.mark.e2e

RANKS = 4
NEEDS_THE_MODEL = ("-m", "entrypoint", "export", "--model", NAME, "--output", "copy")
"""The cheapest command that needs all of it: nothing is computed, so nothing heavy imported."""


class Job(Launcher):
    """Processes that each know their rank."""

    def __init__(self, server: HubServer, folder: Path) -> None:
        super().__init__(server, folder)
        self.port = free_port()

    def rank(self, number: int, *argv: object, size: int = RANKS, per_node: int = RANKS) -> Process:
        """One process as Azure ML starts it, once for each GPU."""
        return self.start(
            *argv,
            RANK=str(number),
            LOCAL_RANK=str(number % per_node),
            WORLD_SIZE=str(size),
            LOCAL_WORLD_SIZE=str(per_node),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(self.port),
        )

    def ranks(self) -> list[Process]:
        """That command, in every rank."""
        return [self.rank(number, *NEEDS_THE_MODEL) for number in range(RANKS)]


@pytest.fixture
def job(server: HubServer, tmp_path: Path) -> Job:
    return Job(server, tmp_path)


def ended(process: Process, seconds: float = 240) -> tuple[int, str]:
    out, error = process.communicate(timeout=seconds)
    return process.returncode, out + error


def once_each(server: HubServer) -> None:
    assert set(server.downloads().values()) == {1}
    assert server.downloads()[WEIGHTS] == 1


def test_processes_of_torchrun_make_one_download(repo: Repo, server: HubServer, job: Job):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", RANKS)
    code, said = ended(job.start(*torchrun, *NEEDS_THE_MODEL))
    assert code == 0, said
    assert said.count("export: ") == 1
    once_each(server)


def test_processes_with_ranks_make_one_download(repo: Repo, server: HubServer, job: Job):
    results = [ended(process) for process in job.ranks()]
    assert [code for code, _ in results] == [0] * RANKS, results
    assert [said for _, said in results[1:]] == [""] * (RANKS - 1)
    once_each(server)


def test_5_a_failure_of_rank_zero_ends_the_others(repo: Repo, job: Job):
    repo.gated = True
    results = [ended(process) for process in job.ranks()]
    assert [code for code, _ in results] == [5] * RANKS, results
    assert all("rank 0 failed: acme/tiny is gated" in said for _, said in results[1:])


def test_7_the_death_of_rank_zero_ends_the_others_and_a_rerun_resumes(
    repo: Repo, server: HubServer, job: Job
):
    repo.rate = 2 * MIB
    zero, *others = job.ranks()
    wait_for(lambda: server.sent(WEIGHTS) > 4 * MIB)
    zero.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    results = [ended(process, seconds=10) for process in others]
    assert time.monotonic() - killed < 10
    assert [code for code, _ in results] == [7] * (RANKS - 1), results
    assert all("rank 0 died" in said for _, said in results)
    zero.communicate()

    repo.rate = None
    before = len(server.log)
    results = [ended(process) for process in job.ranks()]
    assert [code for code, _ in results] == [0] * RANKS, results
    starts = [served.start for served in server.log[before:] if served.file == WEIGHTS]
    assert len(starts) == 1
    assert starts[0] > 2 * MIB, "resumed"


def test_143_a_signal_to_rank_zero_ends_all(repo: Repo, server: HubServer, job: Job):
    repo.rate = 2 * MIB
    zero, *others = job.ranks()
    wait_for(lambda: server.sent(WEIGHTS) > 4 * MIB)
    zero.send_signal(signal.SIGTERM)
    assert [ended(process, seconds=10)[0] for process in (zero, *others)] == [143] * RANKS


MEMBER = """
import os, sys, time
from entrypoint.models.checkpoint import locate
from entrypoint.topology import read_start
from entrypoint.zero_first import join

start = read_start(os.environ)
with join(start, os.environ) as team:
    with team.zero_first(together=sys.argv[1] == "together"):
        print(locate("acme/tiny", os.environ).folder)
"""


@pytest.mark.parametrize(("caches", "downloads"), [("together", 1), ("apart", 2)])
def test_nodes_share_a_download_if_they_share_the_cache(
    repo: Repo, server: HubServer, job: Job, caches: str, downloads: int
):
    script = job.folder / "member.py"
    script.write_text(MEMBER, encoding="utf-8")
    nodes = []
    for node in range(2):
        if caches == "apart":
            job.environment["TRAIN_CACHE"] = str(job.folder / f"cache-{node}")
        nodes.append(job.rank(node, script, caches, size=2, per_node=1))
    results = [ended(process) for process in nodes]
    assert [code for code, _ in results] == [0, 0], results
    assert ("rank 1 is waiting for rank 0" in results[1][1]) == (caches == "together")
    assert set(server.downloads().values()) == {downloads}


REUSE = """
import os, socket, sys
from entrypoint.topology import read_start
from entrypoint.zero_first import join

start = read_start(os.environ)
with join(start, os.environ) as team:
    if start.rank == 0:
        from torch.distributed import TCPStore
        store = TCPStore(*start.master, is_master=True)
        store.set("free", "again")
        print(store.get("free"))
    else:
        team.follow()
"""


def test_the_port_is_free_for_tune_run_when_all_have_met(job: Job):
    script = job.folder / "reuse.py"
    script.write_text(REUSE, encoding="utf-8")
    ranks = [job.rank(number, script, size=2, per_node=2) for number in range(2)]
    (code, said), other = (ended(process) for process in ranks)
    assert (code, other[0]) == (0, 0), said + other[1]
    assert "again" in said


def test_3_a_rank_that_does_not_come_is_named(job: Job):
    script = job.folder / "alone.py"
    hurried = "import entrypoint.zero_first as module; module.JOIN_TIMEOUT_S = 1\n"
    script.write_text(hurried + REUSE, encoding="utf-8")
    for rank, missing in ((0, "rank 1 did not come"), (1, "rank 0 did not answer")):
        code, said = ended(job.rank(rank, script, size=2, per_node=2))
        assert code != 0
        assert missing in said


def test_3_a_port_that_is_taken_is_named(job: Job):
    with socket.create_server(("", job.port)):
        code, said = ended(job.rank(0, "-m", "entrypoint", "eval"))
    assert code == 3
    assert f"rank 0 cannot listen at port {job.port}" in said
    assert "MASTER_PORT" in said


def small_run(model: Path, rows: Path, *more: object) -> tuple[object, ...]:
    return (
        "sft", "--model", model, "--data", rows, "--max-seq-len", 128, "--batch-size", 2,
        "--output", "run", *more,
    )  # fmt: skip


def test_several_processes_train(tiny_model: Path, rows: Path, job: Job):
    started = job.train(*small_run(tiny_model, rows, "--nproc-per-node", 2))
    code, said = ended(started)
    assert code == 0, said
    assert "steps   3 of 4 rows" in said
    assert "2 processes" in said
    assert list((job.folder / "run" / "final").glob("*.safetensors"))


def test_processes_that_torchrun_started_train_together(tiny_model: Path, rows: Path, job: Job):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    code, said = ended(job.start(*torchrun, "-m", "entrypoint", *small_run(tiny_model, rows)))
    assert code == 0, said
    assert said.count("steps   3 of 4 rows") == 1
    steps = (job.folder / "run" / "logs" / "metrics.jsonl").read_text().splitlines()
    assert len(steps) == 3


def test_143_a_signal_to_several_processes_saves_a_checkpoint(
    tiny_model: Path, rows: Path, job: Job
):
    started = job.train(
        *small_run(tiny_model, rows, "--nproc-per-node", 2, "--epochs", 2000, "--grace", 120)
    )
    metrics = job.folder / "run" / "logs" / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.read_text().count("\n") > 2)
    started.send_signal(signal.SIGTERM)
    code, said = ended(started)
    assert code == 143, said
    assert "Traceback" not in said
    assert "a checkpoint is saved" in said
    assert len(list((job.folder / "run" / "checkpoints").glob("step_*"))) == 1


def test_7_the_death_of_one_of_several_processes_ends_the_run(
    tiny_model: Path, rows: Path, job: Job
):
    started = job.train(*small_run(tiny_model, rows, "--nproc-per-node", 2, "--epochs", 2000))
    metrics = job.folder / "run" / "logs" / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.read_text().count("\n") > 2)
    os.kill(worker_of(started.pid, rank=1), signal.SIGKILL)
    killed = time.monotonic()
    code, said = ended(started)
    assert time.monotonic() - killed < 60
    assert code == 7, said
    assert "rank 1 failed first, with exit code -9" in said
    assert "memory ran out, most likely" in said


BROKEN = """
import os
from torch import nn
from entrypoint.tune.loss import LabelledCrossEntropy

class Loss(LabelledCrossEntropy):
    def forward(self, *given):
        if os.environ.get("RANK") == "1":
            raise RuntimeError("broken on purpose")
        return super().forward(*given)
"""


def test_7_the_error_of_the_process_that_failed_comes_first(tiny_model: Path, rows: Path, job: Job):
    """The other one is amid the same step and would wait for it."""
    (job.folder / "broken.py").write_text(BROKEN, encoding="utf-8")
    job.environment["PYTHONPATH"] = f"{job.folder}:{job.environment.get('PYTHONPATH', '')}"
    began = time.monotonic()
    code, said = ended(
        job.train(*small_run(tiny_model, rows, "--nproc-per-node", 2, "--epochs", 2000,
                             "--set", "loss._component_=broken.Loss"))
    )  # fmt: skip
    assert time.monotonic() - began < 60
    assert code == 7, said
    assert "RuntimeError: broken on purpose" in said
    assert said.index("broken on purpose") < said.index("rank 1 failed first, with exit code 1")
    assert "rank 0" not in said
    assert said.count("Traceback") == 1


def worker_of(pid: int, rank: int) -> int:
    """The training process with that rank among the descendants of a process."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        except OSError:
            continue
        if f"RANK={rank}" in variables:
            return int(child)
        if found := worker_of(int(child), rank):
            return found
    return 0
