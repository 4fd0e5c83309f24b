"""The processes of one job: rank zero does what must be done once, the others wait for it.

They hold a connection to rank zero for as long as the job runs, so that its end, its failure and
its death reach them at once. No process group of torch is involved: nothing has to be destroyed
before `tune run` makes its own, and the port that all know is free again when all have met.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import IO, Any

from entrypoint.errors import ChildError, ExitCode, SettingsError, TrainError, TrainingError
from entrypoint.progress import say
from entrypoint.topology import Start, alone, read_start

JOIN_TIMEOUT_S = 15 * 60
"""Nodes of a cluster do not start together: one may still be fetching its image."""
RETRY_S = 0.2
SAY_AFTER_S = 10.0
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine that lost its power closes nothing: it is given up after 25 s."""


class Team:
    """This process and the others of its job; the only member of a job of one.

    Args:
        start: how this process was started.
        peers: connections to all others in rank zero, the one to rank zero elsewhere.
    """

    def __init__(self, start: Start, peers: list["Peer"]) -> None:
        self.start = start
        self._peers = peers

    def __enter__(self) -> "Team":
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if self.start.rank == 0:
            what = error.what if isinstance(error, TrainError) else str(error or "")
            self._tell({"end": _exit_code(error), "what": what})
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
            message = self._hear()
            if "end" in message:
                raise _failure(message)
        yield
        if together and self.start.rank == 0:
            self._tell({"ready": True})

    def follow(self) -> None:
        """Wait until rank zero ends.

        Raises:
            ChildError: it failed.
            TrainingError: it died.
        """
        while "end" not in (message := self._hear()):
            pass
        if message["end"] != ExitCode.OK:
            raise _failure(message)

    def _tell(self, message: Mapping[str, Any]) -> None:
        for peer in self._peers:
            # who has gone is missed by whoever started it
            with suppress(OSError):
                peer.send(message)

    def _hear(self) -> dict[str, Any]:
        message = self._peers[0].receive()
        if message is None:
            raise TrainingError(
                "rank 0 died: it closed the connection without a word",
                where=f"rank {self.start.rank}",
                hint="see the output of rank 0; if that says nothing it was killed, "
                "for lack of memory perhaps",
            )
        return message


class Peer:
    """One JSON object a line, over a connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connection = connection
        self._lines: IO[bytes] = connection.makefile("rb")

    def send(self, message: Mapping[str, Any]) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other side has gone, or is too slow for the time-out."""
        try:
            message = json.loads(self._lines.readline() or b"null")
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


def once(work: Callable[[Mapping[str, str]], None], environ: Mapping[str, str]) -> None:
    """Do `work` in rank zero; the others wait, and end as it ends.

    Args:
        work: gets an environment that does not speak of other processes: what it starts is not
            to look for them.

    Raises:
        ChildError: rank zero failed, with its exit code.
        TrainingError: rank zero died.
    """
    start = read_start(environ)
    with join(start, environ) as team:
        if start.rank == 0:
            work(alone(environ))
        else:
            team.follow()


def join(start: Start, environ: Mapping[str, str]) -> Team:
    """Meet the other processes of the job.

    Args:
        environ: says whether a torchrun that started us has a store at MASTER_PORT.

    Raises:
        SettingsError: the others did not come, or the port is taken.
    """
    if start.size == 1:
        return Team(start, [])
    agent = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    board = _Board(start, f"tunecask/{attempt}") if agent else None
    return Team(start, _gather(start, board) if start.rank == 0 else [_connect(start, board)])


class _Board:
    """Where rank zero says its port when torchrun's own store listens at MASTER_PORT."""

    def __init__(self, start: Start, key: str) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        self._store = TCPStore(
            *start.master, is_master=False, timeout=timedelta(seconds=JOIN_TIMEOUT_S)
        )
        self._key = key

    def post(self, port: int) -> None:
        self._store.set(self._key, str(port))

    def read(self) -> int:
        """Waits for it."""
        try:
            return int(self._store.get(self._key))
        except RuntimeError as error:
            raise _missed(f"rank 0 did not come within {JOIN_TIMEOUT_S} s") from error


def _gather(start: Start, board: _Board | None) -> list[Peer]:
    """Rank zero's part: wait for all others."""
    port = 0 if board else start.master[1]
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise SettingsError(
            f"rank 0 cannot listen at port {port}: {error.strerror}",
            where="the environment variable MASTER_PORT",
            hint="give a port that is free on the machine of rank 0",
        ) from error
    peers: dict[int, Peer] = {}
    began, said = time.monotonic(), False
    with server:
        if board:
            board.post(server.getsockname()[1])
        server.settimeout(RETRY_S)
        while len(peers) < start.size - 1:
            with suppress(TimeoutError):
                # whoever stands in for a rank that was restarted replaces it
                rank, peer = _welcome(server.accept()[0])
                if rank is not None and 0 < rank < start.size:
                    peers[rank] = peer
            waited = time.monotonic() - began
            missing = sorted(set(range(1, start.size)) - set(peers))
            if missing and waited > SAY_AFTER_S and not said:
                said = True
                say(f"rank 0 is waiting for {len(missing)} of {start.size} processes: {missing}")
            if missing and waited > JOIN_TIMEOUT_S:
                raise _missed(f"rank {missing[0]} did not come within {JOIN_TIMEOUT_S} s")
    for peer in peers.values():
        with suppress(OSError):
            peer.send({"met": start.size})
    return list(peers.values())


def _welcome(connection: socket.socket) -> tuple[int | None, Peer]:
    """Who it is that connects: something else may knock at an open port."""
    connection.settimeout(SAY_AFTER_S)
    peer = Peer(connection)
    message = peer.receive() or {}
    connection.settimeout(None)
    rank = message.get("rank")
    return rank if isinstance(rank, int) else None, peer


def _connect(start: Start, board: _Board | None) -> Peer:
    """Every other rank's part."""
    host, port = start.master[0], board.read() if board else start.master[1]
    began, said = time.monotonic(), False
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=SAY_AFTER_S)
            connection.settimeout(None)
            peer = Peer(connection)
            peer.send({"rank": start.rank})
            if "met" in (peer.receive() or {}):
                return peer
            peer.close()
        except OSError:
            # not there yet, or its name is not known yet
            pass
        waited = time.monotonic() - began
        if waited > SAY_AFTER_S and not said:
            said = True
            say(f"rank {start.rank} is waiting for rank 0 at {host}:{port}")
        if waited > JOIN_TIMEOUT_S:
            raise _missed(f"rank 0 did not answer at {host}:{port} within {JOIN_TIMEOUT_S} s")
        time.sleep(RETRY_S)


def _exit_code(error: BaseException | None) -> int:
    match error:
        case None:
            return ExitCode.OK
        case TrainError():
            return error.exit_code
        case KeyboardInterrupt():
            return ExitCode.SIGINT
    return ExitCode.BUG


def _failure(message: Mapping[str, Any]) -> TrainError:
    return ChildError(message["end"], f"rank 0 failed: {message['what']}")


def _missed(what: str) -> SettingsError:
    return SettingsError(
        what,
        where="the environment variables WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT",
        hint="start `train` so many times, with ranks from 0; MASTER_ADDR must be rank 0's address",
    )
