"""entrypoint.tracking: read back with MLflow's own client from a real store."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint import tracking
from entrypoint.run_folder import RunFolder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient()


@pytest.fixture
def run(store: Any) -> str:
    return str(store.create_run(store.create_experiment("job")).info.run_id)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has ended well."""
    found = RunFolder(root=tmp_path / "run")
    found.logs.mkdir(parents=True)
    found.evaluations.mkdir()
    settings = {"method": "lora", "teacher": None, "tags": "x" * 600}
    found.manifest.write_text(json.dumps({"settings": settings}))
    found.result.write_text(json.dumps({"evaluation": {"tuned": {"exact_match": 0.5}}}))
    found.report.write_text("<html>")
    found.evaluation("tuned").write_text("{}")
    return found


def artifacts(store: Any, run: str) -> set[str]:
    found = {each.path for each in store.list_artifacts(run)}
    return found | {each.path for each in store.list_artifacts(run, "eval")}


def test_the_jobs_run_gets_settings_scores_and_files(store, run, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    tracking.hand_over(folder, ("mlflow",))
    found = store.get_run(run)
    assert found.data.params == {"settings.method": "lora", "settings.tags": "x" * 500}
    assert found.data.metrics == {"eval.tuned.exact_match": 0.5}
    assert found.info.status == "RUNNING"
    assert artifacts(store, run) == {
        "manifest.json", "result.json", "report.html", "eval", "eval/tuned.json",
    }  # fmt: skip


def test_without_a_job_it_is_the_run_that_has_the_metrics(store, run, folder):
    (folder.logs / "loggers.json").write_text(json.dumps({"mlflow": run}))
    tracking.hand_over(folder, ("tensorboard", "mlflow"))
    assert "report.html" in artifacts(store, run)


def test_nothing_is_handed_over_that_was_not_asked_for(store, run, folder, monkeypatch):
    tracking.hand_over(folder, ("mlflow",))
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    tracking.hand_over(folder, ("tensorboard",))
    assert artifacts(store, run) == set()


def test_no_more_parameters_than_azure_ml_takes(store, run, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    for number in range(199):
        store.log_param(run, f"key{number}", 1)
    tracking.hand_over(folder, ("mlflow",))
    assert len(store.get_run(run).data.params) == 200


def test_a_server_that_fails_costs_a_warning(folder, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:canary-word@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_RUN_ID", "x")
    tracking.hand_over(folder, ("mlflow",))
    error = capsys.readouterr().err
    assert error.count("warning: mlflow does not take the report") == 1
    assert "canary" not in error


def test_an_evaluation_of_its_own_goes_to_the_job_that_it_is(store, run, folder, monkeypatch):
    file = folder.evaluation("tuned")
    tracking.attach(file, "tuned", {"loss": 1.5})
    assert artifacts(store, run) == set()
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    tracking.attach(file, "tuned", {"loss": 1.5})
    assert artifacts(store, run) == {"eval", "eval/tuned.json"}
    assert store.get_run(run).data.metrics == {"eval.tuned.loss": 1.5}
