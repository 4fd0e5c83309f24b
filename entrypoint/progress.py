"""Progress of what takes long: bars in a terminal, a line now and then elsewhere."""

import sys
import time
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 10.0
COLUMNS = "TUNECASK_COLUMNS"
"""Variable that tells a process whose output we pass on the terminal's width; unset for none."""
SMALL = 1_000_000
"""Bytes below which a file is not worth a line."""


class Progress:
    """Counts bytes of one file and of all files.

    Args:
        total: bytes of all files.
        done: bytes that were there before.
    """

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        self.terminal = sys.stderr.isatty()
        self._bar: Any = None
        if self.terminal:
            self._bar = tqdm(
                total=total, initial=done, desc="all files", unit="B", unit_scale=True, position=1
            )

    def add(self, count: int) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def file_bar(self) -> type[Any]:
        """A class that huggingface_hub makes the bar of one file with."""
        progress = self

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, **arguments: Any) -> None:
                super().__init__(position=0, leave=False, **arguments)

            def update(self, n: float | None = 1) -> None:
                progress.add(int(n or 0))
                super().update(n)

        class Lines:
            def __init__(self, *, desc: str, total: int, initial: int = 0, **_: Any) -> None:
                self.name, self.size, self.have = desc, total, initial
                self.said = time.monotonic()

            def __enter__(self) -> "Lines":
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def update(self, n: float | None = 1) -> None:
                self.have += int(n or 0)
                progress.add(int(n or 0))
                whole = self.have >= self.size and self.size > SMALL
                if whole or time.monotonic() - self.said > LINE_EVERY_S:
                    self.said = time.monotonic()
                    say(
                        f"{self.name}: {gb(self.have)} of {gb(self.size)}, "
                        f"all files: {gb(progress.done)} of {gb(progress.total)}"
                    )

        return Bar if self.terminal else Lines


class Steps:
    """Counts the parts of one piece of work.

    Args:
        what: a word or two before the numbers.
        total: parts.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._said = time.monotonic()
        self._bar: Any = tqdm(total=total, desc=what) if sys.stderr.isatty() else None

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """One part is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
        elif self.done == self.total or time.monotonic() - self._said > LINE_EVERY_S:
            self._said = time.monotonic()
            say(f"{self.what} {self.done}/{self.total}")


def say(line: str) -> None:
    """Tell the user what is going on, beside the results on standard output."""
    print(line, file=sys.stderr, flush=True)


def gb(count: int) -> str:
    """Bytes for people."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
