"""What the folder of logs keeps for loggers: values of all steps, what servers call the run."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint.files import read_json, write_json
from entrypoint.run_folder import METRICS

RECORD = "loggers.json"
"""In the folder of logs: what the servers call the run."""


def missed_by(logs: Path, newest: int, done: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Steps up to `done` that a server does not have, as it was behind when the run was killed.

    Args:
        newest: the last step that it has.
    """
    with (logs / METRICS).open(encoding="utf-8") as file:
        for line in file if newest < done else ():
            numbers = json.loads(line)
            step = numbers.pop("step")
            if step > done:
                return
            if step > newest:
                yield step, numbers


class Record:
    """What a server calls the run, kept in the run's folder."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def read(self) -> str | None:
        found = self._all().get(self.name)
        return None if found is None else str(found)

    def write(self, identity: str) -> None:
        with _WRITING:
            write_json(self.path, self._all() | {self.name: identity})

    def _all(self) -> dict[str, Any]:
        return read_json(self.path) or {}


_WRITING = threading.Lock()
