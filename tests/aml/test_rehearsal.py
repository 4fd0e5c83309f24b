"""Rehearsals that train: what Azure ML would send, started as Azure ML starts it."""

import json
from pathlib import Path

import pytest

from entrypoint.errors import ExitCode
from scripts.aml import cli, rehearsal
from tests.recipes import few_rows

pytestmark = pytest.mark.e2e

TINY = (
    "--dtype", "fp32", "--batch-size", "2", "--max-seq-len", "256", "--save-every", "2",
)  # fmt: skip


@pytest.fixture
def rehearse(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    """Runs a rehearsal; gives exit code, output and the run folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TRAIN_CACHE", str(tmp_path / "cache"))
    rows = few_rows(tmp_path / "rows", train=16)

    def run(*options: str, command: tuple[str, ...]) -> tuple[int, str, Path]:
        given = ("--compute", "c", "--name", "a-run", "--nodes", "2", *options, "sft", *TINY)
        inputs = ("--model", str(tiny_model), "--data", rows)
        code = cli.run(["rehearse", *given, *inputs, *command])
        folder = rehearsal.FOLDER / "a-run/datastores/workspaceblobstore/tunecask/a-run"
        return code, "".join(capfd.readouterr()), folder

    return run


def steps(run: Path) -> list[int]:
    lines = (run / "logs/metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_rehearsal_that_is_killed_and_started_again_gives_the_whole_run(rehearse):
    code, said, run = rehearse("--kill-at-step", "3", command=("--epochs", "2"))
    assert code == 0, said
    assert "killed at step 3; started again" in said
    assert "resumed after step 2" in (run / "logs/train.log").read_text()
    assert steps(run) == list(range(1, 9))
    assert {"final", "adapter", "result.json", "report.html"} <= {
        path.name for path in run.iterdir()
    }
    code, said, _ = rehearse(command=())
    assert (code, "was rehearsed already" in said) == (ExitCode.SETTINGS, True)


def test_one_process_for_each_gpu_trains_on_two_nodes(rehearse):
    """On CPUs: the size says how many processes are started."""
    size = ("--start", "gpu", "--size", "Standard_NC48ads_A100_v4")
    code, said, run = rehearse(*size, command=("--max-steps", "2", "--device", "cpu"))
    assert code == 0, said
    assert "4 processes on 2 nodes" in said
    assert steps(run) == [1, 2]
    logs = sorted((rehearsal.FOLDER / "a-run/attempt-1/user_logs").glob("std_log_process_*"))
    assert len(logs) == 4
    assert "node 1 has trained" in logs[2].read_text()
