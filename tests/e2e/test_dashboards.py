"""A run that tells TensorBoard, MLflow and W&B is read back with what their makers read it with.

A server of MLflow is asked in tests/image; here it is MLflow's store, and W&B's offline mode.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.cli import run

pytestmark = pytest.mark.e2e

Points = list[tuple[int, float]]
"""Steps with their losses."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return (tmp_path_factory.mktemp("mlflow") / "mlruns").as_uri()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, store: str) -> Path:
    """Of a run of three steps."""
    place = tmp_path_factory.mktemp("dashboards")
    rows = ({"prompt": f"Number {n}?", "completion": "Yes"} for n in range(12))
    (place / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("TRAIN_CACHE", str(place / "cache"))
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", store)
        patch.setenv("WANDB_MODE", "offline")
        assert run([
            "sft", "--model", str(tiny_model), "--data", "rows.jsonl", "--max-seq-len", "128",
            "--batch-size", "4", "--epochs", "1", "--output", "outputs/told",
            "--log-to", "tensorboard,mlflow,wandb",
        ]) == 0  # fmt: skip
    return place / "outputs" / "told" / "logs"


@pytest.fixture(scope="module")
def losses(logs: Path) -> Points:
    lines = map(json.loads, (logs / "metrics.jsonl").read_text().splitlines())
    found = [(line["step"], line["loss"]) for line in lines]
    assert [step for step, _ in found] == [1, 2, 3]
    return found


def test_tensorboard_reads_the_run(logs: Path, losses: Points):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(logs / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        (step, pytest.approx(loss)) for step, loss in losses
    ]


def test_mlflow_reads_the_run(
    logs: Path, losses: Points, store: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("tunecask").experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "told")
    history = client.get_metric_history(found.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == losses
    names = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert {"manifest.json", "result.json"} <= names


def test_wandb_reads_the_run(logs: Path, losses: Points):
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    (path,) = logs.glob("wandb/offline-run-*/*.wandb")
    store = DataStore()
    store.open_for_scan(str(path))
    points: Points = []
    config: dict[str, Any] = {}
    ended: list[int] = []
    while (data := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            points.append((values["_step"], values["loss"]))
        elif record.HasField("run"):
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            assert (record.run.project, record.run.display_name) == ("tunecask", "told")
        elif record.HasField("exit"):
            ended.append(record.exit.exit_code)
    store.close()
    assert points == losses
    assert config["batch_size"] == "4"
    assert ended == [0]
