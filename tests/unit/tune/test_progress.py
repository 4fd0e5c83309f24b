"""entrypoint.tune.progress: a bar on a terminal, lines elsewhere."""

import pytest

from entrypoint.progress import COLUMNS
from entrypoint.tune.progress import Progress, duration


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def steps(progress: Progress, clock: Clock, numbers: range, seconds: float) -> None:
    for number in numbers:
        clock.now += seconds
        progress.advance(number, 500, {"loss": 1 / number})


def test_in_a_log_there_is_a_plain_line_now_and_then(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with Progress(30, 0, every=10, clock=clock) as progress:
        steps(progress, clock, range(1, 31), 1.0)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines() == [
        "step 1/30  loss 1.000  500 tokens/s  0:29 left",
        "step 11/30  loss 0.091  500 tokens/s  0:19 left",
        "step 21/30  loss 0.048  500 tokens/s  0:09 left",
        "step 30/30  loss 0.033  500 tokens/s  0:00 left",
    ]
    assert "\r" not in shown.out


def test_the_time_left_of_a_resumed_run_is_that_of_its_own_steps(
    capsys: pytest.CaptureFixture[str],
):
    clock = Clock()
    with Progress(100, 90, every=10, clock=clock) as progress:
        steps(progress, clock, range(91, 93), 60.0)
    assert capsys.readouterr().out.splitlines() == [
        "step 91/100  loss 0.011  8 tokens/s  9:00 left",
        "step 92/100  loss 0.011  8 tokens/s  8:00 left",
    ]


def test_on_a_terminal_there_is_a_bar_of_its_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(COLUMNS, "70")
    clock = Clock()
    with Progress(4, 0, every=10, clock=clock) as progress:
        steps(progress, clock, range(1, 5), 1.0)
    shown = capsys.readouterr()
    assert shown.out == ""
    *_, last = shown.err.strip().split("\r")
    assert last.startswith("step 4/4 |█")
    assert last.endswith("█| loss 0.250  500 tokens/s  0:00 left")
    assert len(last) <= 70


def test_one_process_speaks_for_all(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with Progress(4, 0, every=10, shown=False, clock=clock) as progress:
        steps(progress, clock, range(1, 5), 20.0)
        progress.say("something")
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (90_061, "25:01:01")]
)
def test_durations_are_written_for_people(seconds: float, shown: str):
    assert duration(seconds) == shown
