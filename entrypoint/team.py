"""The processes of a job that has met: what they tell each other, and how they end together."""

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import IO, Any

from entrypoint.errors import ChildError, ExitCode, TrainError, TrainingError
from entrypoint.progress import say
from entrypoint.topology import Start

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""A machine that lost its power or its network closes nothing: it is given up after 25 s."""
SIGNAL_EXITS = (ExitCode.SIGINT, ExitCode.SIGTERM)
PATIENCE_S = 10.0
"""A process that a signal ended has agreed on it with the others, which end by themselves."""
GOODBYE_S = 2.0


class Abort:
    """The error of another process of the job, and what it ends in this one."""

    def __init__(self) -> None:
        self.error: TrainError | None = None
        self._kill: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def now(self, error: TrainError) -> None:
        """Another process failed: end what runs here. The first error counts."""
        with self._lock:
            if self.error is not None:
                return
            self.error = error
            kill = self._kill
        if kill:
            kill()

    @contextmanager
    def ends(self, kill: Callable[[], None]) -> Iterator[None]:
        """While inside, `kill` is called when another process fails, or has failed already."""
        with self._lock:
            self._kill = kill
            late = self.error is not None
        if late:
            kill()
        try:
            yield
        finally:
            with self._lock:
                self._kill = None

    def check(self) -> None:
        """Raises what another process failed of, if one has."""
        if self.error is not None:
            raise self.error


class Peer:
    """One JSON object a line, over a connection.

    Args:
        rank: of the process at its other end; None until it has said so.
    """

    def __init__(self, connection: socket.socket, rank: int | None = None) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.connection, self.rank = connection, rank
        self._lines: IO[bytes] = connection.makefile("rb")

    def send(self, message: Mapping[str, Any]) -> None:
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other side has gone, or is too slow for the time-out."""
        try:
            message = json.loads(self._lines.readline() or b"null")
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def hang_up(self) -> None:
        """Whoever waits for a message of it hears that it has gone."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._lines.close()
        self.connection.close()


class Team:
    """This process and the others of its job; the only member of a job of one.

    Args:
        start: how this process was started.
        peers: connections to all others in rank zero, the one to rank zero elsewhere.
    """

    def __init__(self, start: Start, peers: Sequence[Peer] = ()) -> None:
        self.start, self.abort = start, Abort()
        self._peers = peers
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closing = False
        listen = self._mind if start.rank == 0 else self._listen
        self._threads = [
            threading.Thread(target=listen, args=(peer,), daemon=True) for peer in peers
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Team":
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        self._closing = True
        if self.start.rank == 0:
            self.tell({"end": _exit_code(error), **_described(error)})
        elif error is not None:
            self.tell({"failed": _exit_code(error), **_described(error)})
        for peer in self._peers:
            peer.hang_up()
        for thread in self._threads:
            thread.join(GOODBYE_S)
        for peer in self._peers:
            peer.close()

    @contextmanager
    def zero_first(self, *, together: bool) -> Iterator[None]:
        """Rank zero runs what is inside first, the others when it is through.

        Args:
            together: whether what is done inside serves all; otherwise nobody waits.

        Raises:
            ChildError: rank zero failed.
            TrainingError: rank zero died.
        """
        if together and self.start.rank != 0:
            say(f"rank {self.start.rank} is waiting for rank 0")
            self.hear("ready")
        yield
        if together and self.start.rank == 0:
            self.tell({"ready": True})

    def follow(self) -> None:
        """Wait until rank zero ends.

        Raises:
            ChildError: it failed.
            TrainingError: it died.
        """
        self.hear("end")

    def tell(self, message: Mapping[str, Any]) -> None:
        """Rank zero tells all others, another process rank zero."""
        for peer in self._peers:
            # who has gone is missed by whoever started it
            with suppress(OSError):
                peer.send(message)

    def hear(self, word: str) -> Any:
        """What rank zero says of it; None when rank zero ends without a word of it.

        Raises:
            ChildError: rank zero failed.
            TrainingError: rank zero died.
        """
        while True:
            message = self._heard.get()
            if isinstance(message, TrainError):
                raise message
            if word in message:
                return message[word]
            if "end" in message:
                return None

    def _listen(self, zero: Peer) -> None:
        """What rank zero says, until it ends or dies."""
        while True:
            message = zero.receive()
            if self._closing:
                return
            error = None
            if message is None:
                error = _death(self._name(0), self._name(self.start.rank))
            elif (code := message.get("end", 0)) != ExitCode.OK:
                error = _failure(self._name(0), code, message)
            if error:
                self._end(error)
            self._heard.put(error or message)
            if error or "end" in (message or {}):
                return

    def _mind(self, peer: Peer) -> None:
        """In rank zero: whether another process that starts training fails or dies."""
        number = peer.rank or 0
        if number % (self.start.local_size or 1):
            # it only waits; whoever started it misses it
            return
        message = peer.receive()
        if self._closing:
            return
        if message is None:
            self.abort.now(_death(self._name(number), self._name(0)))
        else:
            self._end(_failure(self._name(number), message["failed"], message))

    def _name(self, rank: int) -> str:
        """Training numbers its ranks anew, so of several nodes only their own numbers are clear."""
        if self.start.nodes == 1:
            return f"rank {rank}"
        return f"node {rank // (self.start.local_size or 1)}"

    def _end(self, error: TrainError) -> None:
        if error.exit_code in SIGNAL_EXITS:
            timer = threading.Timer(PATIENCE_S, self.abort.now, (error,))
            timer.daemon = True
            timer.start()
        else:
            self.abort.now(error)


def _exit_code(error: BaseException | None) -> int:
    match error:
        case None:
            return ExitCode.OK
        case TrainError():
            return error.exit_code
        case KeyboardInterrupt():
            return ExitCode.SIGINT
    return ExitCode.BUG


def _described(error: BaseException | None) -> dict[str, str | None]:
    if isinstance(error, TrainError):
        return {"what": error.what, "where": error.where, "hint": error.hint}
    return {"what": str(error or ""), "where": None, "hint": None}


def _failure(who: str, code: int, message: Mapping[str, Any]) -> TrainError:
    return ChildError(
        code, f"{who} failed: {message['what']}", where=message["where"], hint=message["hint"]
    )


def _death(who: str, witness: str) -> TrainError:
    return TrainingError(
        f"{who} died: it closed the connection without a word, or is out of reach",
        where=witness,
        hint=f"see the output of {who}; if that says nothing it was killed, "
        "for lack of memory perhaps, or its network failed",
    )
