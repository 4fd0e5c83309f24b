"""Rehearsals that train: what Azure ML would send, started as Azure ML starts it."""

import json
import os
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

from entrypoint.errors import ExitCode
from entrypoint.zero_first import free_port
from scripts.aml import cli, rehearsal
from scripts.aml.machines import Nodes, Work
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


@pytest.fixture
def job_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The run of MLflow that Azure ML gives a job, in a store on the disk."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    run = client.create_run(client.create_experiment("job")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    return client, run


def test_a_rehearsal_that_is_killed_and_started_again_gives_the_whole_run(rehearse, job_run):
    """On one node, as test_wire.py takes the machines of two away. The next checkpoint is 31 steps
    off, most of a second, so that it cannot be there before the kill."""
    train = ("--epochs", "8", "--save-every", "32")
    code, said, run = rehearse("--nodes", "1", "--kill-at-step", "33", command=train)
    assert code == 0, said
    assert "killed at step 33; started again" in said
    assert "resumed after step 32" in (run / "logs/train.log").read_text()
    assert steps(run) == list(range(1, 65))
    assert {"final", "adapter", "result.json", "report.html"} <= {
        path.name for path in run.iterdir()
    }
    client, identity = job_run
    losses = client.get_metric_history(identity, "loss")
    assert sorted(point.step for point in losses) == list(range(1, 65))
    tracked = client.get_run(identity).data.params
    assert (tracked["settings.batch_size"], tracked["batch_size"]) == ("2", "2")
    artifacts = {each.path for each in client.list_artifacts(identity)}
    assert artifacts == {"manifest.json", "recipe.yaml", "result.json", "report.html"}
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


def test_a_curated_environment_installs_tunecask_from_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    """As the original with USE_BUILTIN_ENV: the environment has torch, and not Tunecask."""
    monkeypatch.chdir(tmp_path)
    curated = "azureml://registries/azureml/environments/acpt/labels/latest"
    options = ("--compute", "c", "--install", "--environment", curated)
    code = cli.run(["validate", *options, "sft", "--max-steps", "2", "--dry-run"])
    out, err = capfd.readouterr()
    assert code == 0, err
    made = yaml.safe_load(out)
    python = tmp_path / "env"
    venv.create(python, with_pip=True)
    site = next(python.glob("lib/python*/site-packages"))
    (site / "base.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    work = Work(
        command=made["command"],
        inputs={},
        outputs={"run": tmp_path / "run"},
        code=Path(made["code"]),
        environment={
            "PATH": f"{python / 'bin'}:{os.environ['PATH']}",
            "TRAIN_CACHE": str(tmp_path / "cache"),
        },
        nodes=1,
        processes=1,
        master_port=free_port(),
    )
    (tmp_path / "run").mkdir()
    nodes = Nodes(work=work, folder=tmp_path / "job")
    with rehearsal.running(nodes):
        went_well = nodes.wait(300)
        said = (nodes.logs / "std_log_process_00.txt").read_text()
    assert went_well, said
    assert "entrypoint.tune.recipe" in said
    assert (site / "entrypoint" / "cli.py").is_file()
    assert (site / "entrypoint" / "recipes" / "sft.yaml.j2").is_file()
    assert (python / "bin" / "train").is_file()
