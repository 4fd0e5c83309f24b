"""entrypoint.comparison.table: the table at the end of a run."""

from pathlib import Path

from rich.console import Console

from entrypoint.comparison.paired import Comparison, Difference
from entrypoint.comparison.table import differences, shown, table
from entrypoint.evaluation.request import Evaluation


def test_scores_stand_side_by_side(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"0" * 1500)
    found = [
        Evaluation(
            label=label,
            checkpoint=tmp_path,
            scores={"t/exact_match": value},
            rows={"t": 200},
            weights_bytes=1500,
        )
        for label, value in (("base", 0.0), ("tuned", 0.935))
    ]
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table(found))
    words = captured.get().split()
    assert words[:3] == ["t:", "200", "rows"]
    for word in ("base", "tuned", "t/exact_match", "0.0%", "93.5%", "1.5"):
        assert word in words


def test_shares_are_percentages_and_others_numbers():
    assert shown("t/acc_norm", 0.5) == "50.0%"
    assert shown("t/word_perplexity", 12.34567) == "12.35"


def test_differences_have_their_unit_interval_and_test_within_80_columns():
    def one(score: str, low: float | None, p_value: float | None) -> Difference:
        return Difference(
            label="tuned", against="base", score=score, rows=9, before=0.1, after=0.7, low=low,
            high=low and 0.9, p_value=p_value, won=None, lost=None, higher_is_better=True,
        )  # fmt: skip

    found = Comparison(
        evaluations=(),
        differences=(
            one("bookings/exact_match", 0.5, 0.0001),
            one("bookings/loss", 0.5, None),
            one("bookings/f1_of_something_long", None, None),
        ),
        changes=(),
    )
    console = Console(width=80)
    with console.capture() as captured:
        for each in differences(found):
            console.print(each)
    text = captured.get()
    assert "+60.0 pt" in text
    assert "+50.0 to +90.0" in text
    assert "< 0.001" in text
    assert "+0.5 to +0.9" in text
    assert "…" not in text
