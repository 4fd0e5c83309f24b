"""entrypoint.stock: how torchtune's command line ends."""

from typing import Any

import pytest

from entrypoint import process, stock
from entrypoint.cli import run
from entrypoint.command import stock_command
from entrypoint.process import Exit


@pytest.mark.parametrize(
    ("arguments", "ended", "code", "message"),
    [
        (("ls",), {"code": 0}, 0, ""),
        (("nothing",), {"code": 2}, 2, "torchtune ended with the error above"),
        (("run", "x"), {"code": 1}, 7, "torchtune ended with exit code 1"),
        (("run", "x"), {"code": 3}, 3, "torchtune ended with the error above"),
        (("run", "x"), {"code": -9}, 7, "exit code -9"),
        (("cp", "x"), {"code": 1}, 3, "where: train tune"),
        (("run", "x"), {"code": 143, "signal_received": 15}, 143, "interrupted"),
        (("run", "x"), {"code": 1, "signal_received": 2}, 130, "interrupted"),
    ],
)
def test_it_ends_with_the_exit_codes_of_train(
    arguments: tuple[str, ...],
    ended: dict[str, Any],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    seen = []

    def pretend(command: Any, *_: Any) -> Exit:
        seen.append(command.argv)
        return Exit(**{"signal_received": None, "tail": "", **ended})

    monkeypatch.setattr(process, "run", pretend)
    assert run(["tune", *arguments]) == code
    assert message in capsys.readouterr().err
    assert seen[0][2:] == ("entrypoint.tune", *arguments)


def test_what_follows_tune_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    monkeypatch.setattr(stock, "tune", lambda arguments, _: seen.append(arguments))
    given = ("run", "--nproc_per_node", "2", "x", "--help", "--config", "a b.yaml", "+k=v", "-h")
    assert run(["tune", *given]) == 0
    assert seen == [given]


def test_it_has_the_environment_of_training():
    environment = stock_command(("ls",), {}).environment
    assert "GLIBC_TUNABLES" in environment
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["GOMP_SPINCOUNT"] == "10000"


def test_how_threads_wait_is_the_users_choice():
    environment = stock_command(("ls",), {"OMP_WAIT_POLICY": "active"}).environment
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys()
