"""One stream of metrics for every run, and any of torchtune's loggers beside it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune.config._utils import _get_component_from_path
from torchtune.training.metric_logging import MetricLoggerInterface, WandBLogger

FILE_NAME = "metrics.jsonl"


class MetricStream(MetricLoggerInterface):
    """Writes `metrics.jsonl`, one JSON object for each optimizer step, and feeds another logger.

    Args:
        log_dir: folder of metrics.jsonl, created when missing; the other logger's too.
        also: import path of the other logger; None for none.
    """

    def __init__(self, log_dir: str, also: str | None = None) -> None:
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # line buffered: a step that was logged survives a crash in the next
        self._file = (folder / FILE_NAME).open("a+", encoding="utf-8", buffering=1)
        self._also = _logger(also, log_dir) if also else None

    def log_config(self, config: DictConfig) -> None:
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

    def rewind(self, step: int) -> None:
        """Forget what was logged after that step: a resumed run makes those steps again."""
        self._file.seek(0)
        kept = []
        for line in self._file:
            # a killed process may have left half a line
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break
            kept.append(line)
        self._file.truncate(0)
        self._file.writelines(kept)

    def close(self) -> None:
        self._file.close()
        if self._also:
            self._also.close()


def _logger(path: str, log_dir: str) -> Any:
    logger = _get_component_from_path(path)
    if logger is WandBLogger:
        # torchtune names a project of its own, which would win over the variable
        return logger(log_dir=log_dir, project=os.environ.get("WANDB_PROJECT", "tunecask"))
    return logger(log_dir=log_dir)
