"""How far training is: a bar on a terminal, a line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from entrypoint.progress import COLUMNS

BAR = "step {n_fmt}/{total_fmt} |{bar}| {desc}"


class Progress:
    """Shows steps as they are made.

    Args:
        total: steps of the run.
        done: those that were made before.
        every: seconds between lines where there is no terminal.
        shown: whether anything is: one process speaks for all.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        total: int,
        done: int,
        *,
        every: float,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._step, self._before = total, done, done
        self._every, self._shown, self._clock = every, shown, clock
        self._began = self._said = clock()
        self._tokens = 0.0
        self._bar: Any = None
        columns = _columns()
        if shown and columns:
            self._bar = tqdm(total=total, initial=done, bar_format=BAR, ncols=columns)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, step: int, tokens: float, values: Mapping[str, float]) -> None:
        """A step is made.

        Args:
            step: its number, from 1.
            tokens: that it learned from, padding left out.
            values: to show, by name.
        """
        self._step, self._tokens = step, self._tokens + tokens
        now = self._clock()
        first, last = step == self._before + 1, step == self._total
        if self._bar is None and not (first or last or now - self._said >= self._every):
            return
        speed = self._tokens / max(now - self._said, 1e-9)
        left = (now - self._began) / (step - self._before) * (self._total - step)
        figures = "  ".join(
            (
                *(f"{name} {value:.3f}" for name, value in values.items()),
                f"{speed:,.0f} tokens/s",
                f"{duration(left)} left",
            )
        )
        if self._bar is not None:
            self._bar.set_description_str(figures, refresh=False)
            self._bar.update(step - self._bar.n)
        elif self._shown:
            print(f"step {step}/{self._total}  {figures}", flush=True)
        self._said, self._tokens = now, 0.0

    def say(self, line: str) -> None:
        """Something beside the steps."""
        if self._shown:
            tqdm.write(line)
            sys.stdout.flush()


def duration(seconds: float) -> str:
    """For people: 0:42, 3:07:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _columns() -> int | None:
    """Width of the terminal that this process's output ends at; None when it ends at none."""
    if given := os.environ.get(COLUMNS):
        return int(given)
    return os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else None
