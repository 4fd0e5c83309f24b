"""One stream of metrics for every run, which feeds all loggers."""

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import DictConfig
from torchtune.config._utils import _get_component_from_path
from torchtune.training.metric_logging import MetricLoggerInterface

from entrypoint.errors import Interrupted
from entrypoint.run_folder import METRICS
from entrypoint.tune.loggers import LOGGERS, Background, Ending, parameters_of


class MetricStream(MetricLoggerInterface):
    """Writes `metrics.jsonl`, one JSON object for each optimizer step, and feeds other loggers.

    Args:
        log_dir: folder of metrics.jsonl, created when missing; the other loggers' too.
        also: import path of one of torchtune's loggers; None for none.
        loggers: names of `loggers.LOGGERS`, which cannot disturb training.
    """

    def __init__(self, log_dir: str, also: str | None = None, loggers: Sequence[str] = ()) -> None:
        self._folder = Path(log_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        # line buffered: a step that was logged survives a crash in the next
        self._file = (self._folder / METRICS).open("a+", encoding="utf-8", buffering=1)
        with redirect_stdout(io.StringIO()):  # torchtune's DiskLogger prints where it writes
            self._also = _get_component_from_path(also)(log_dir=log_dir) if also else None
        self._names = loggers
        self._parameters: dict[str, str] = {}
        self._loggers: list[Background] | None = None

    def __enter__(self) -> "MetricStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, traceback: TracebackType | None
    ) -> None:
        stopped = kind is not None and issubclass(kind, Interrupted)
        self.close("finished" if kind is None else "killed" if stopped else "failed")

    def log_config(self, config: DictConfig) -> None:
        self._parameters = parameters_of(config)
        if self._also:
            self._also.log_config(config)

    def log(self, name: str, data: Any, step: int) -> None:
        self.log_dict({name: data}, step)

    def log_dict(self, payload: Mapping[str, Any], step: int) -> None:
        numbers = {
            name: value if isinstance(value, int) else float(value)
            for name, value in payload.items()
        }
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        if self._also:
            self._also.log_dict(numbers, step)
        for logger in self._open(step - 1):
            logger.log(step, numbers)

    def rewind(self, step: int) -> None:
        """Forget what was logged after that step: a resumed run makes those steps again."""
        kept = 0
        with Path(self._file.name).open("rb") as file:
            for line in file:
                # a killed process may have left half a line
                if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                    break
                kept += len(line)
        # cut, not written anew: nothing is lost if this process is killed too
        self._file.truncate(kept)
        self._open(step)

    def close(self, ending: Ending = "finished") -> None:
        self._file.close()
        if self._also:
            self._also.close()
        for logger in self._loggers or ():
            logger.close(ending)

    def _open(self, done: int) -> list[Background]:
        if self._loggers is None:
            self._loggers = [
                Background(name, LOGGERS[name](self._folder), self._parameters, done)
                for name in self._names
            ]
        return self._loggers
