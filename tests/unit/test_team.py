"""entrypoint.team: what processes of a job hear of each other, over real connections."""

import socket
import threading
from collections.abc import Iterator

import pytest

from entrypoint.errors import ChildError, Interrupted, SettingsError, TrainingError
from entrypoint.team import Abort, Peer, Team
from entrypoint.topology import Start


@pytest.fixture
def two() -> Iterator[tuple[Team, Team]]:
    """Two nodes that have met."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    zero = Team(Start(rank=0, size=2, node=0, nodes=2), [Peer(here, rank=1)])
    one = Team(Start(rank=1, size=2, node=1, nodes=2), [Peer(there)])
    yield zero, one
    for team in (zero, one):
        team.__exit__(None, None, None)


def killed(team: Team) -> threading.Event:
    """Is set when the team's failure ends what runs here."""
    event, entered = threading.Event(), threading.Event()

    def wait() -> None:
        with team.abort.ends(event.set):
            entered.set()
            event.wait(10)

    threading.Thread(target=wait, daemon=True).start()
    assert entered.wait(10)
    return event


def test_words_are_heard_in_their_order(two: tuple[Team, Team]):
    zero, one = two
    zero.tell({"orders": [1]})
    zero.tell({"inputs": {"a": "b"}})
    assert one.hear("orders") == [1]
    assert one.hear("inputs") == {"a": "b"}


def test_the_end_comes_instead_of_a_word(two: tuple[Team, Team]):
    zero, one = two
    zero.__exit__(None, None, None)
    assert one.hear("orders") is None


def test_a_failure_of_node_zero_ends_the_training_of_another(two: tuple[Team, Team]):
    zero, one = two
    ends = killed(one)
    error = SettingsError("no such thing", where="there", hint="do this")
    zero.__exit__(SettingsError, error, None)
    assert ends.wait(10)
    with pytest.raises(ChildError, match="node 0 failed: no such thing\n  where: there") as raised:
        one.follow()
    assert raised.value.exit_code == 3


def test_a_failure_of_another_node_ends_the_training_of_node_zero(two: tuple[Team, Team]):
    zero, one = two
    ends = killed(zero)
    one.__exit__(TrainingError, TrainingError("rank 1 failed first"), None)
    assert ends.wait(10)
    with pytest.raises(ChildError, match="node 1 failed: rank 1 failed first"):
        zero.abort.check()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_death_is_noticed(two: tuple[Team, Team], victim: int):
    dead, survivor = two[victim], two[1 - victim]
    ends = killed(survivor)
    dead._closing = True
    dead._peers[0].hang_up()
    assert ends.wait(10)
    with pytest.raises(TrainingError, match=f"node {victim} died"):
        survivor.abort.check()


def test_a_signal_lets_the_other_node_save(two: tuple[Team, Team]):
    zero, one = two
    ends = killed(zero)
    one.__exit__(Interrupted, Interrupted(15, "interrupted"), None)
    assert not ends.wait(0.5)


def test_a_failure_that_came_before_ends_at_once():
    abort, ended = Abort(), []
    abort.now(TrainingError("first"))
    abort.now(TrainingError("second"))
    with abort.ends(lambda: ended.append(True)):
        assert ended
    with pytest.raises(TrainingError, match="first"):
        abort.check()


def test_processes_that_only_wait_are_not_missed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    start = Start(rank=0, size=4, nodes=2, local_size=2)
    with Team(start, [Peer(here, rank=1)]) as zero:
        there.close()
        zero._threads[0].join(10)
        zero.abort.check()
