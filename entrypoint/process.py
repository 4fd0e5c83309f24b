"""The only place that starts processes."""

import codecs
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from entrypoint.command import Command
from entrypoint.secrets import Redactor

CHUNK_BYTES = 65_536
PROGRESS_SECONDS = 10.0
"""How often a line that overwrites itself is shown where nothing can be overwritten."""
FORWARDED = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """How a process ended."""

    code: int
    """Its exit code; minus the signal's number when a signal killed it."""
    signal_received: int | None
    """The signal that reached us meanwhile and was passed on."""
    tail: str
    """Its last lines."""


class LineSplitter:
    """Cuts output into lines, and thins out progress bars, which end in a carriage return.

    Args:
        emit: receives each line, without its end.
        clock: seconds, monotonic.
    """

    def __init__(self, emit: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._emit = emit
        self._clock = clock
        self._rest = ""
        self._next_progress = 0.0

    def feed(self, text: str) -> None:
        pieces = re.split(r"(\r\n|\n|\r)", self._rest + text)
        self._rest = pieces.pop()
        for line, end in zip(pieces[::2], pieces[1::2], strict=True):
            if end != "\r":
                self._emit(line)
            elif line.strip() and self._clock() >= self._next_progress:
                self._emit(line)
                self._next_progress = self._clock() + PROGRESS_SECONDS

    def close(self) -> None:
        if self._rest:
            self._emit(self._rest)


def run(command: Command, environ: Mapping[str, str], log: Path, terminal: IO[str]) -> Exit:
    """Run `command` to its end; its output goes to `log` and, as it comes, to `terminal`.

    SIGINT and SIGTERM are passed on to the command's process group and awaited. Values of secret
    variables are replaced in both places.

    Args:
        environ: the environment that the command's own additions are laid over.
        log: created, with its folder, or appended to.
        terminal: gets progress bars as they are when it is one, else a line now and then.

    Raises:
        FileNotFoundError: the executable does not exist.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    redact = Redactor(environ)
    tail: list[str] = []
    with log.open("a", encoding="utf-8", buffering=1) as log_file:

        def record(line: str) -> None:
            log_file.write(line + "\n")
            tail.append(line)
            del tail[:-40]
            if not live:
                terminal.write(line + "\n")
                terminal.flush()

        live = terminal.isatty()
        splitter = LineSplitter(record)
        process = subprocess.Popen(
            command.argv,
            env={**environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            # a Ctrl-C at the terminal reaches us alone and is passed on once
            start_new_session=True,
        )
        with _forwarding(process) as received:
            assert process.stdout is not None
            for text in _decoded(process.stdout):
                shown = redact(text)
                splitter.feed(shown)
                if live:
                    terminal.write(shown)
                    terminal.flush()
            code = process.wait()
        splitter.close()
    return Exit(code=code, signal_received=received[0] if received else None, tail="\n".join(tail))


def _decoded(stream: IO[bytes]) -> Iterator[str]:
    """The stream's text, cut at ends of lines so that no secret is split between two pieces."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    while chunk := stream.read(CHUNK_BYTES):
        rest += decoder.decode(chunk)
        end = max(rest.rfind("\n"), rest.rfind("\r")) + 1
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest := rest + decoder.decode(b"", final=True):
        yield rest


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """While inside, SIGINT and SIGTERM go to the process's group; yields those that came."""
    received: list[int] = []

    def forward(number: int, _: Any) -> None:
        received.append(number)
        if process.poll() is None:
            os.killpg(process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def git_revision(folder: Path) -> str | None:
    """The commit that `folder` is checked out at, or None outside a checkout."""
    try:
        found = subprocess.run(
            ("git", "-C", str(folder), "rev-parse", "HEAD"), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
