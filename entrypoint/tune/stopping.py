"""SIGINT and SIGTERM as a wish that the training loop grants where it can."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_S = 0.05


class Stop:
    """The signal that came, if one has."""

    number = 0

    def request(self, number: int, _: Any = None) -> None:
        self.number = self.number or number

    def awaited(self, seconds: float) -> bool:
        """Whether a signal has come, or comes within that time."""
        deadline = time.monotonic() + seconds
        while not self.number and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return bool(self.number)


@contextmanager
def listening() -> Iterator[Stop]:
    """While inside, signals are noted and do nothing else."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.signal(number, stop.request) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
