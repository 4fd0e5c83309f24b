"""entrypoint.tune.loggers: read back with what the loggers' own makers provide."""

import json
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from entrypoint.errors import Interrupted
from entrypoint.tune import compat

compat.apply()

from entrypoint.tune.loggers import LAST_SECONDS, Background, parameters_of  # noqa: E402
from entrypoint.tune.metrics import MetricStream  # noqa: E402

RECIPE = OmegaConf.create({"model": {"rank": 8}, "seed": 42, "names": ["a", "b"]})


def run(logs: Path, name: str, first: int, last: int, *, ends: type | None = None) -> None:
    """Log those steps to one logger; the loss of step N is 10 - N."""
    stream = MetricStream(str(logs), loggers=[name])
    stream.log_config(RECIPE)
    with pytest.raises(ends) if ends else stream:  # type: ignore[var-annotated]
        if ends:
            stream.__enter__()
        stream.rewind(first - 1)
        for step in range(first, last + 1):
            stream.log_dict({"loss": 10.0 - step, "tokens": step}, step)
        if ends:
            error = ends(15, "x") if ends is Interrupted else ends("x")
            stream.__exit__(ends, error, None)
            raise error


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "my-run" / "logs"


def test_tensorboard_reads_each_step_once(logs: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(logs, "tensorboard", 1, 5)
    # step 5 was made, and is made again: it was not in the checkpoint
    time.sleep(1.1)  # the names of event files are in seconds
    run(logs, "tensorboard", 4, 6)
    found = EventAccumulator(str(logs / "tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "tokens"}
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in found.Scalars("loss")] == [9, 8, 7, 6, 5, 4]
    (text,) = found.Tensors("recipe/text_summary")
    assert b"model.rank" in text.tensor_proto.string_val[0]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a real MLflow store on the disk."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def runs(store: Any) -> list[Any]:
    experiment = store.get_experiment_by_name("tunecask")
    return list(store.search_runs([experiment.experiment_id]))


def test_mlflow_goes_on_with_its_run_and_has_each_step_once(store: Any, logs: Path):
    run(logs, "mlflow", 1, 5, ends=Interrupted)
    (found,) = runs(store)
    assert found.info.status == "KILLED"
    assert found.info.run_name == "my-run"
    run(logs, "mlflow", 4, 6)
    (found,) = runs(store)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"model.rank": "8", "seed": "42", "names": "['a', 'b']"}
    history = store.get_metric_history(found.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [
        (step, 10.0 - step) for step in range(1, 7)
    ]


def test_what_mlflow_missed_of_a_killed_run_is_made_up_for(store: Any, logs: Path):
    stream = MetricStream(str(logs))
    for step in range(1, 5):
        stream.log_dict({"loss": 10.0 - step, "tokens": step}, step)
    stream.close()
    run(logs, "mlflow", 4, 6)
    history = store.get_metric_history(runs(store)[0].info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [
        (step, 10.0 - step) for step in range(1, 7)
    ]


def test_mlflow_marks_a_failed_run(store: Any, logs: Path):
    run(logs, "mlflow", 1, 1, ends=ValueError)
    assert [found.info.status for found in runs(store)] == ["FAILED"]


def test_azures_run_is_logged_to_and_left_running(
    store: Any, logs: Path, monkeypatch: pytest.MonkeyPatch
):
    theirs = store.create_run(store.create_experiment("job")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    run(logs, "mlflow", 1, 2)
    found = store.get_run(theirs)
    assert found.info.status == "RUNNING"
    assert found.data.metrics == {"loss": 8.0, "tokens": 2.0}
    assert store.get_experiment_by_name("tunecask") is None


def test_mlflow_gets_at_most_200_parameters_of_500_characters(
    store: Any, logs: Path, monkeypatch: pytest.MonkeyPatch
):
    large = OmegaConf.create({f"key{number}": "x" * 600 for number in range(230)})
    monkeypatch.setitem(globals(), "RECIPE", large)
    run(logs, "mlflow", 1, 1)
    (found,) = runs(store)
    assert len(found.data.params) == 200
    assert {len(value) for value in found.data.params.values()} == {500}


class Server:
    """A port that takes connections and never answers."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://user:canary-word@127.0.0.1:{self.socket.getsockname()[1]}"


def test_a_server_that_fails_or_hangs_costs_a_warning(
    logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    silent = Server()
    closed = Server()
    closed.socket.close()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for server in (closed, silent):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setitem(LAST_SECONDS, "finished", 1.0)
        began = time.monotonic()
        run(logs, "mlflow", 1, 3)
        assert time.monotonic() - began < 10
        error = capsys.readouterr().err
        assert error.count("warning: mlflow does not take metrics; training goes on") == 1
        assert "canary" not in error
        lines = (logs / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == [1, 2, 3]
    silent.socket.close()


def test_a_logger_that_could_not_be_opened_is_tried_again(capsys: pytest.CaptureFixture[str]):
    class Fails:
        opened = 0
        seen: tuple[int, ...] = ()

        def open(self, parameters: Any, done: int) -> None:
            self.opened += 1
            if self.opened < 3:
                raise OSError("not yet")

        def log(self, step: int, numbers: Any) -> None:
            self.seen += (step,)

        def close(self, ending: str) -> None:
            self.seen += (ending,)  # type: ignore[operator]

    logger = Fails()
    background = Background("x", logger, {}, 0)
    for step in range(1, 5):
        background.log(step, {})
    background.close("finished")
    assert logger.seen == (3, 4, "finished")
    assert capsys.readouterr().err.count("warning: x") == 1


def test_wandb_goes_on_with_its_run_and_has_each_step_once(
    logs: Path, monkeypatch: pytest.MonkeyPatch
):
    """With a stand-in that keeps wandb's contract for init, log and finish."""
    points: list[tuple[int, float]] = []
    calls: list[dict[str, Any]] = []
    ended: list[int] = []

    def init(**given: Any) -> Any:
        calls.append(given)
        return types.SimpleNamespace(
            id="abc123",
            step=max((step for step, _ in points), default=-1) + 1,
            log=lambda numbers, step: points.append((step, numbers["loss"])),
            finish=lambda exit_code: ended.append(exit_code),
        )

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    run(logs, "wandb", 1, 5, ends=Interrupted)
    run(logs, "wandb", 4, 6)
    assert points == [(step, 10.0 - step) for step in range(1, 7)]
    assert ended == [1, 0]
    assert [(call["id"], call["resume"]) for call in calls] == [(None, None), ("abc123", "allow")]
    assert calls[0]["project"] == "mine"
    assert calls[0]["name"] == "my-run"
    assert calls[0]["config"]["model.rank"] == "8"


def test_training_does_not_wait_for_a_logger():
    gate = threading.Event()

    class Slow:
        def open(self, parameters: Any, done: int) -> None:
            gate.wait(10)

        def log(self, step: int, numbers: Any) -> None: ...

        def close(self, ending: str) -> None: ...

    background = Background("slow", Slow(), {}, 0)
    began = time.monotonic()
    background.log(1, {})
    assert time.monotonic() - began < 0.5
    gate.set()
    background.close("finished")
    assert not background.thread.is_alive()


def test_a_recipe_becomes_dotted_keys():
    nested = OmegaConf.create({"a": {"b": {"c": 1}, "d": None}, "e": {}})
    assert parameters_of(nested) == {"a.b.c": "1", "a.d": "None", "e": "{}"}
