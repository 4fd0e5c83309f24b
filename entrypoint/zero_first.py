"""The processes of one job: rank zero does what must be done once, the others wait for it.

They hold a connection to rank zero for as long as the job runs, so that its end, its failure and
its death reach them at once. No process group of torch is involved: nothing has to be destroyed
before `tune run` makes its own, and the port that all know is free again when all have met.
"""

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from entrypoint.errors import SettingsError
from entrypoint.progress import say
from entrypoint.team import Peer, Team
from entrypoint.topology import Start, alone, interface_of, read_start, settle

JOIN_TIMEOUT_S = 15 * 60
"""Nodes of a cluster do not start together: one may still be fetching its image."""
RETRY_S = 0.2
SAY_AFTER_S = 10.0


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


def on_each_node(
    work: Callable[[Mapping[str, str]], None], environ: Mapping[str, str], *, together: bool
) -> None:
    """Do `work` in the first process of each node; the others wait, and end as rank zero ends.

    Args:
        work: as for `once`.
        together: whether what rank zero does serves all nodes, and the others only wait.

    Raises:
        ChildError: rank zero failed, or another node before rank zero was through.
        TrainingError: the same, of one that died.
    """
    start = read_start(environ)
    with join(start, environ) as team:
        if start.rank == 0 or (team.start.leads_node and not together):
            work(alone(environ))
        if start.rank != 0:
            team.follow()
        elif not together:
            team.abort.check()


def join(start: Start, environ: Mapping[str, str]) -> Team:
    """Meet the other processes of the job.

    Args:
        environ: says whether a torchrun that started us has a store at MASTER_PORT.

    Raises:
        SettingsError: the others did not come, or the port is taken.
    """
    if start.size == 1:
        return Team(start)
    agent = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    board = _Board(start, f"tunecask/{attempt}") if agent else None
    if start.rank == 0:
        peers, local_size = _gather(start, board)
    else:
        peer, local_size = _connect(start, board)
        peers = [peer]
    if not start.settled:
        start = settle(start, local_size)
    interface = interface_of(peers[0].connection.getsockname()[0])
    master = (start.master[0], free_port()) if board and start.rank == 0 else start.master
    return Team(replace(start, interface=interface, master=master), peers)


def free_port() -> int:
    """A port that nobody listens at, now."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


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


def _gather(start: Start, board: _Board | None) -> tuple[list[Peer], int]:
    """Rank zero's part: wait for all others, and count those of a node."""
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
    began, said, local_size = time.monotonic(), False, 1
    with server:
        if board:
            board.post(server.getsockname()[1])
        server.settimeout(RETRY_S)
        while len(peers) < start.size - 1:
            with suppress(TimeoutError):
                # whoever stands in for a rank that was restarted replaces it
                peer, local_rank = _welcome(server.accept()[0])
                if peer.rank is not None and 0 < peer.rank < start.size:
                    peers[peer.rank] = peer
                    local_size = max(local_size, local_rank + 1)
            waited = time.monotonic() - began
            missing = sorted(set(range(1, start.size)) - set(peers))
            if missing and waited > SAY_AFTER_S and not said:
                said = True
                say(f"rank 0 is waiting for {len(missing)} of {start.size} processes: {missing}")
            if missing and waited > JOIN_TIMEOUT_S:
                raise _missed(f"rank {missing[0]} did not come within {JOIN_TIMEOUT_S} s")
    for peer in peers.values():
        with suppress(OSError):
            peer.send({"met": start.size, "local_size": local_size})
    return list(peers.values()), local_size


def _welcome(connection: socket.socket) -> tuple[Peer, int]:
    """Who it is that connects, and its local rank: something else may knock at an open port."""
    connection.settimeout(SAY_AFTER_S)
    peer = Peer(connection)
    message = peer.receive() or {}
    connection.settimeout(None)
    rank, local_rank = message.get("rank"), message.get("local_rank")
    if isinstance(rank, int) and isinstance(local_rank, int):
        peer.rank = rank
        return peer, local_rank
    return peer, 0


def _connect(start: Start, board: _Board | None) -> tuple[Peer, int]:
    """Every other rank's part; how many of them a node has."""
    host, port = start.master[0], board.read() if board else start.master[1]
    began, said = time.monotonic(), False
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=SAY_AFTER_S)
            connection.settimeout(None)
            peer = Peer(connection)
            peer.send({"rank": start.rank, "local_rank": start.local_rank})
            if "met" in (met := peer.receive() or {}):
                return peer, met["local_size"]
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


def _missed(what: str) -> SettingsError:
    return SettingsError(
        what,
        where="the environment variables WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT",
        hint="start `train` so many times, with ranks from 0; MASTER_ADDR must be rank 0's address",
    )
