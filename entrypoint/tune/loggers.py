"""TensorBoard, MLflow and Weights & Biases, fed from the metrics stream.

Each works in a thread of its own, so training waits for none of them, and a server that fails or
hangs costs a warning. A resumed run continues the run that its folder names in loggers.json.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from omegaconf import DictConfig, OmegaConf

from entrypoint.secrets import Redactor
from entrypoint.tune.logged import RECORD, Record, missed_by

Ending = Literal["finished", "failed", "killed"]
Item = Callable[[], None]

MOST_PARAMETERS = 200
"""Of a run: the limit of Azure ML."""
LONGEST_PARAMETER = 500
"""Characters: the limit of Azure ML."""
PARAMETERS_AT_ONCE = 100
"""The limit of MLflow's servers."""
LAST_SECONDS: dict[Ending, float] = {"finished": 60.0, "failed": 60.0, "killed": 5.0}
"""How long the end of a run waits for loggers that are behind; after a signal, --grace goes on."""
STEPS_AT_ONCE = 50
"""Their values stay below 1000, another limit of these servers."""


class Logger(Protocol):
    """Something that metrics go to; any call may raise."""

    def open(self, parameters: Mapping[str, str], done: int) -> None:
        """Begin, or go on after step `done`; called again when it has failed."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self, ending: Ending) -> None: ...


class TensorBoard:
    """Event files in `logs/tensorboard`.

    Args:
        logs: the run's folder of logs.
    """

    def __init__(self, logs: Path) -> None:
        self.folder = logs / "tensorboard"

    def open(self, parameters: Mapping[str, str], done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # readers forget what earlier files hold of the steps that are made again
        self.writer: Any = SummaryWriter(str(self.folder), purge_step=done + 1)
        if not done:
            table = "\n".join(f"| {key} | {value} |" for key, value in parameters.items())
            self.writer.add_text("recipe", f"| key | value |\n|---|---|\n{table}")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self, ending: Ending) -> None:
        self.writer.close()


class Mlflow:
    """A run of MLflow at MLFLOW_TRACKING_URI; inside Azure ML the job's own (MLFLOW_RUN_ID).

    Args:
        logs: the run's folder of logs.
    """

    def __init__(self, logs: Path) -> None:
        self.record, self.logs = Record(logs / RECORD, "mlflow"), logs
        self.given = os.environ.get("MLFLOW_RUN_ID")
        self.newest = 0

    def open(self, parameters: Mapping[str, str], done: int) -> None:
        self.client: Any = patient()
        run = self.given or self.record.read()
        if run is None:
            run = self._create()
            self.record.write(run)
        elif not self.given:
            self.client.update_run(run, status="RUNNING")
        history = self.client.get_metric_history(run, "loss")
        self.newest = max((point.step for point in history), default=0)
        log_parameters(self.client, run, parameters)
        self.run = run
        missed = list(missed_by(self.logs, self.newest, done))
        for start in range(0, len(missed), STEPS_AT_ONCE):
            self._send(missed[start : start + STEPS_AT_ONCE])

    def _create(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "tunecask")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if experiment is None and (found := self.client.get_experiment_by_name(name)):
            experiment = found.experiment_id
        run = self.client.create_run(
            experiment or self.client.create_experiment(name),
            run_name=self.record.path.parent.parent.name,
        )
        return str(run.info.run_id)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if step > self.newest:  # a step that is made again is there already
            self._send([(step, numbers)])

    def _send(self, steps: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [
            Metric(name, value, now, step)
            for step, numbers in steps
            for name, value in numbers.items()
        ]
        self.client.log_batch(self.run, metrics=points)

    def close(self, ending: Ending) -> None:
        if not self.given:  # Azure ML ends its own
            self.client.set_terminated(self.run, ending.upper())


def patient() -> Any:
    """MLflow's client; by its own defaults it tries for minutes to reach a server."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def log_parameters(client: Any, run: str, parameters: Mapping[str, str]) -> None:
    """Add parameters that a run does not have yet, as many and as long as Azure ML takes."""
    from mlflow.entities import Param

    known = client.get_run(run).data.params
    new = [
        Param(key, value[:LONGEST_PARAMETER])
        for key, value in parameters.items()
        if key not in known
    ][: MOST_PARAMETERS - len(known)]
    for start in range(0, len(new), PARAMETERS_AT_ONCE):
        client.log_batch(run, params=new[start : start + PARAMETERS_AT_ONCE])


class Wandb:
    """A run of Weights & Biases, in the project WANDB_PROJECT.

    Args:
        logs: the run's folder of logs.
    """

    def __init__(self, logs: Path) -> None:
        self.record, self.logs = Record(logs / RECORD, "wandb"), logs

    def open(self, parameters: Mapping[str, str], done: int) -> None:
        import wandb

        run = self.record.read()
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tunecask"),
            name=os.environ.get("WANDB_NAME", self.logs.parent.name),
            dir=str(self.logs),
            id=run,
            resume="allow" if run else None,
            config=dict(parameters),
        )
        if run is None:
            self.record.write(self.run.id)
        self.next = self.run.step
        for step, numbers in missed_by(self.logs, self.next - 1, done):
            self.log(step, numbers)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if step >= self.next:  # a step that is made again is there already
            self.run.log(dict(numbers), step=step)

    def close(self, ending: Ending) -> None:
        self.run.finish(exit_code=0 if ending == "finished" else 1)


LOGGERS: dict[str, Callable[[Path], Logger]] = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}


class Background:
    """Keeps a logger's work, and its failures, away from training.

    Args:
        name: what to call it in the one warning.
        logger: opened in the thread, and again after it has failed to open.
        parameters: of the run.
        done: step after which the run goes on.
    """

    def __init__(self, name: str, logger: Logger, parameters: Mapping[str, str], done: int) -> None:
        self.name, self.logger = name, logger
        self.parameters, self.done = parameters, done
        self.opened = self.warned = False
        self.queue: queue.Queue[Item | None] = queue.Queue()
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand over; returns at once."""
        self.queue.put(lambda: self.logger.log(step, numbers))

    def close(self, ending: Ending) -> None:
        """End, and wait a while for what is still to be sent."""
        self.queue.put(lambda: self.logger.close(ending))
        self.queue.put(None)
        self.thread.join(LAST_SECONDS[ending])
        if self.thread.is_alive():
            self._warn("it is behind, and its last values are lost")

    def _work(self) -> None:
        while (item := self.queue.get()) is not None:
            try:
                if not self.opened:
                    self.logger.open(self.parameters, self.done)
                    self.opened = True
                item()
            except Exception as error:  # noqa: BLE001 - no logger may end a training
                self._warn(f"{type(error).__name__}: {error}")

    def _warn(self, what: str) -> None:
        if not self.warned:
            self.warned = True
            said = Redactor(os.environ)(" ".join(what.split()))[:LONGEST_PARAMETER]
            print(
                f"warning: {self.name} does not take metrics; training goes on, and metrics.jsonl "
                f"has them. {said}",
                file=sys.stderr,
                flush=True,
            )


def parameters_of(config: DictConfig) -> dict[str, str]:
    """A recipe as one level of dotted keys."""
    flat: dict[str, str] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, Mapping) and node:
            for key, value in node.items():
                walk(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            flat[prefix] = str(node)

    walk(OmegaConf.to_container(config, resolve=True), "")
    return flat
