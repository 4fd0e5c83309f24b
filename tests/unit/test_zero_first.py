"""entrypoint.zero_first: which processes of a job do the work, and how the others end."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from entrypoint import zero_first
from entrypoint.cli import run
from entrypoint.errors import DataError, ExitCode, TrainError
from entrypoint.team import Abort


def ranks(count: int, per_node: int | None) -> list[dict[str, str]]:
    """The environment of each process of a job, as it is started for each GPU or on each node."""
    common = {
        "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(zero_first.free_port()),
    }  # fmt: skip
    if per_node is None:
        return [common | {"NODE_RANK": str(rank)} for rank in range(count)]
    return [
        common | {"RANK": str(rank), "LOCAL_RANK": str(rank % per_node)} for rank in range(count)
    ]


def together(work: Callable[[int], None], environs: list[dict[str, str]], **how: bool) -> list[int]:
    """Exit codes of the processes, of which each does its work if it is the one to do it."""
    codes = [-1] * len(environs)

    def process(rank: int) -> None:
        def mine(environ: Mapping[str, str]) -> None:
            assert "WORLD_SIZE" not in environ
            work(rank)

        try:
            zero_first.on_each_node(mine, environs[rank], **how)
            codes[rank] = 0
        except TrainError as error:
            codes[rank] = error.exit_code

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(len(environs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return codes


@pytest.mark.parametrize(
    ("per_node", "shared", "workers"),
    [(2, False, {0, 2}), (2, True, {0}), (None, False, {0, 1, 2, 3}), (None, True, {0})],
)
def test_one_process_of_a_node_works_or_one_for_all(
    per_node: int | None, shared: bool, workers: set[int]
):
    worked: list[int] = []
    assert together(worked.append, ranks(4, per_node), together=shared) == [0] * 4
    assert sorted(worked) == sorted(workers)


@pytest.mark.parametrize("victim", [0, 2])
def test_4_a_node_that_fails_ends_all_with_its_code(victim: int, monkeypatch: pytest.MonkeyPatch):
    heard, now = threading.Event(), Abort.now

    def hears(self: Abort, error: TrainError) -> None:
        now(self, error)
        heard.set()

    monkeypatch.setattr(Abort, "now", hears)

    def work(rank: int) -> None:
        if rank == victim:
            raise DataError("no rows")
        assert heard.wait(30)

    assert together(work, ranks(4, 2), together=False) == [ExitCode.DATA] * 4


def test_prepare_waits_in_all_processes_but_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    zero, one = ranks(2, 2)
    for name, value in one.items():
        monkeypatch.setenv(name, value)

    def fail(_: Mapping[str, str]) -> None:
        raise DataError("no rows")

    def first() -> None:
        with pytest.raises(DataError):
            zero_first.once(fail, zero)

    thread = threading.Thread(target=first)
    thread.start()
    output = tmp_path / "out"
    assert run(["prepare", "--no-tokens", "--output", str(output)]) == ExitCode.DATA
    thread.join(30)
    assert not output.exists()
