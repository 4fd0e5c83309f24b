"""entrypoint.comparison.table: the table at the end of a run."""

from pathlib import Path

from rich.console import Console

from entrypoint.comparison.table import shown, table
from entrypoint.evaluation.request import Evaluation


def test_scores_side_by_side(tmp_path: Path):
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
