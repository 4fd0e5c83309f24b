"""Several processes of one job: one download, one fate."""

import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import MIB, NAME, WEIGHTS, Launcher, Process, wait_for
from tests.hub_server import HubServer, Repo

pytestmark = pytest.mark.e2e

RANKS = 4


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
        """The cheapest command that needs the whole model, in every rank."""
        command = ("-m", "entrypoint", "quantize", "--model", NAME, "--output", "quantized")
        return [self.rank(number, *command) for number in range(RANKS)]


@pytest.fixture
def job(server: HubServer, tmp_path: Path) -> Job:
    return Job(server, tmp_path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ended(process: Process, seconds: float = 240) -> tuple[int, str]:
    out, error = process.communicate(timeout=seconds)
    return process.returncode, out + error


def once_each(server: HubServer) -> None:
    assert set(server.downloads().values()) == {1}
    assert server.downloads()[WEIGHTS] == 1


def test_processes_of_torchrun_make_one_download(repo: Repo, server: HubServer, job: Job):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", RANKS)
    command = ("-m", "entrypoint", "quantize", "--model", NAME, "--output", "quantized")
    code, said = ended(job.start(*torchrun, *command))
    assert code == 0, said
    assert said.count("quantized model: ") == 1
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


def test_143_a_signal_to_rank_zero(repo: Repo, server: HubServer, job: Job):
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


def test_3_a_rank_that_does_not_come(job: Job):
    script = job.folder / "alone.py"
    hurried = "import entrypoint.zero_first as module; module.JOIN_TIMEOUT_S = 1\n"
    script.write_text(hurried + REUSE, encoding="utf-8")
    for rank, missing in ((0, "rank 1 did not come"), (1, "rank 0 did not answer")):
        code, said = ended(job.rank(rank, script, size=2, per_node=2))
        assert code != 0
        assert missing in said


def test_3_the_port_is_taken(job: Job):
    with socket.create_server(("", job.port)):
        code, said = ended(job.rank(0, "-m", "entrypoint", "eval"))
    assert code == 3
    assert f"rank 0 cannot listen at port {job.port}" in said
    assert "MASTER_PORT" in said
