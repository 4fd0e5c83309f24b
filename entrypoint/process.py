"""The only place that starts processes."""

import codecs
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from entrypoint.command import Command
from entrypoint.progress import COLUMNS
from entrypoint.secrets import Redactor

CHUNK_BYTES = 65_536
PIECE_END = re.compile(r"(\r\n|\n|\r(?!$))")
"""The end of a line; a carriage return at the very end may be the first half of one."""
IDLE_SECONDS = 0.3
PROGRESS_SECONDS = 10.0
"""How often a line that overwrites itself is shown where nothing can be overwritten."""
FORWARDED = (signal.SIGINT, signal.SIGTERM)


Ends = Callable[[Callable[[], None]], AbstractContextManager[None]]


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
    """Cuts output into lines, and thins out progress bars, which overwrite themselves.

    Args:
        emit: receives each line, without its end.
        clock: seconds, monotonic.
    """

    def __init__(
        self, emit: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._emit = emit
        self._clock = clock
        self._next_progress = 0.0

    def feed(self, piece: str) -> None:
        """Take what `pieces` yields: a line with its end, or a state of a progress bar."""
        line = piece.rstrip("\r\n")
        if piece.endswith("\n"):
            self._emit(line)
        elif line.strip() and self._clock() >= self._next_progress:
            self._emit(line)
            self._next_progress = self._clock() + PROGRESS_SECONDS


def run(
    command: Command,
    environ: Mapping[str, str],
    log: Path,
    terminal: IO[str],
    grace: float | None = None,
    ends: Ends | None = None,
) -> Exit:
    """Run `command` to its end; its output goes to `log` and, as it comes, to `terminal`.

    SIGINT and SIGTERM are passed on to the command's process group and awaited. Values of secret
    variables are replaced in both places.

    Args:
        environ: the environment that the command's own additions are laid over.
        log: created, with its folder, or appended to.
        terminal: gets progress bars as they are when it is one, else a line now and then.
        grace: seconds after a signal at which the command is killed; None awaits it for ever.
        ends: is given what kills the command, for as long as it runs.

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
        with (
            subprocess.Popen(
                command.argv,
                env={**environ, **command.environment, **(_width() if live else {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                # a Ctrl-C at the terminal reaches us alone and is passed on once
                start_new_session=True,
            ) as process,
            _forwarding(process, grace) as received,
            ends(partial(_kill, process)) if ends else nullcontext(),
        ):
            assert process.stdout is not None
            for piece in pieces(process.stdout):
                shown = redact(piece)
                splitter.feed(shown)
                if live:
                    terminal.write(shown)
                    terminal.flush()
            code = process.wait()
    return Exit(code=code, signal_received=received[0] if received else None, tail="\n".join(tail))


@contextmanager
def beside(command: Command, environ: Mapping[str, str]) -> Iterator[None]:
    """While inside, `command` runs; nobody sees what it prints. In the end it is awaited, or killed
    when there is an error."""
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(
        command.argv, env={**environ, **command.environment},
        stdin=nowhere, stdout=nowhere, stderr=nowhere,
    ) as process:  # fmt: skip
        try:
            yield
            process.wait()
        finally:
            process.kill()


def pieces(stream: IO[bytes]) -> Iterator[str]:
    """The stream's text in pieces that end in a newline or a carriage return.

    A line is never cut, so that no secret in it is; but a progress bar begins, not ends, with its
    carriage return, so its state is passed on when nothing follows it for a moment.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest, in_progress = "", False
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(IDLE_SECONDS if in_progress and rest else None):
                yield rest
                rest = ""
                continue
            chunk = stream.read(CHUNK_BYTES)
            rest += decoder.decode(chunk, final=not chunk)
            *whole, rest = PIECE_END.split(rest)
            for text, end in zip(whole[::2], whole[1::2], strict=True):
                in_progress = end == "\r"
                yield text + end
            if not chunk:
                break
    if rest:
        yield rest + "\n"


def _width() -> dict[str, str]:
    return {COLUMNS: str(shutil.get_terminal_size().columns)}


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _forwarding(process: subprocess.Popen[bytes], grace: float | None) -> Iterator[list[int]]:
    """While inside, SIGINT and SIGTERM go to the process's group; yields those that came."""
    received: list[int] = []
    patience: list[threading.Timer] = []

    def pass_on(number: int) -> None:
        if process.poll() is None:
            os.killpg(process.pid, number)

    def forward(number: int, _: Any) -> None:
        received.append(number)
        pass_on(number)
        if grace is not None and not patience:
            patience.append(threading.Timer(grace, pass_on, (signal.SIGKILL,)))
            patience[0].start()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield received
    finally:
        for timer in patience:
            timer.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)


def git_revision(folder: Path) -> str | None:
    """The commit that `folder` is checked out at, or None outside a checkout."""
    return _git(folder, "rev-parse", "HEAD")


def git_address(folder: Path) -> str | None:
    """The address of the origin that `folder` is a checkout of, which may hold a password."""
    return _git(folder, "config", "--get", "remote.origin.url")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        found = subprocess.run(
            ("git", "-C", str(folder), *arguments),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
