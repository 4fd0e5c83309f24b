"""entrypoint.units: amounts in words."""

import pytest

from entrypoint.units import duration, money


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.034, "0.03 s"), (0.4, "0.4 s"), (59, "59 s"), (61, "1 min 1 s"),
     (7_260, "2 h 01 min"), (200_000, "2.3 days")],
)  # fmt: skip
def test_no_time_that_something_takes_is_nothing(seconds: float, words: str):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("amount", "words"), [(0, "0.00"), (0.004, "under 0.01"), (0.01, "0.01"), (1234.5, "1,234.50")]
)
def test_no_cost_that_there_is_is_nothing(amount: float, words: str):
    assert money(amount) == words
