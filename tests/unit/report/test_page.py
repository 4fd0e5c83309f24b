"""entrypoint.report: the page of a run, without a browser."""

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from entrypoint.cli import run as cli
from entrypoint.errors import SettingsError
from entrypoint.report import charts
from entrypoint.report.page import duration, number
from entrypoint.reporting import report
from entrypoint.run_folder import RunFolder
from tests.reports import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("runs") / "bookings")


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    return report(run).read_text()


def test_everything_of_the_run_is_on_the_page(page: str):
    for words in (
        "All conditions met", "exact_match&gt;=base-0.01",
        "bookings/<wbr>exact_match", "+82.5 pt", "8da4w - tuned", "p &lt; 0.001", "538.1 MB",
        "Quantization: accuracy against size and speed", "weights on disk (MB)",
        "Learning rate", "tokens per second", "loss (nats per token)", "validation",
        "tuned better than base", "8da4w worse than tuned", "✗ wrong",
        "1,000", "98,765", "33.2 %", "97 and 334 tokens", "duplicates",
        "train sft --data", "--then quantize,eval --gate", "--seed 42",
        "data_files", "git revision", "2.13.0",
    ):  # fmt: skip
        assert words in page, words


def test_what_models_say_is_text_and_not_markup(page: str):
    assert "Tom &lt;b&gt;Bold&lt;/b&gt;" in page
    assert "<b>Bold</b>" not in page


def test_nothing_is_fetched_from_elsewhere(page: str):
    assert not re.search(r"<(script|link|img|iframe)\b(?![^>]*href=\"data:)", page)
    assert "@import" not in page
    assert "DOCTYPE svg" not in page
    for address in re.findall(r"https?://[^\s\"'<]+", page):
        # names, not addresses, of XML
        assert address.startswith("http://www.w3.org/"), address


def test_drawings_take_their_colours_from_the_page_and_have_identifiers_of_their_own(page: str):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert "var(--one)" in drawn
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", drawn)
    found = re.findall(r'\bid="([^"]+)"', drawn)
    assert len(found) == len(set(found))
    assert set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", drawn)) <= set(found)


def test_the_page_of_a_run_is_made_anew_and_a_named_file_is_not_written_over(
    run: RunFolder, page: str, tmp_path: Path, capsys
):
    later = RunFolder(root=Path(shutil.copytree(run.root, tmp_path / "later")))
    added = json.loads(later.evaluation("tuned").read_text()) | {"label": "added-later"}
    later.evaluation("added-later").write_text(json.dumps(added))
    assert "added-later" not in page
    assert cli(["report", str(later.root)]) == 0
    assert "added-later" in later.report.read_text()
    assert not list(later.root.glob(".*"))

    again = tmp_path / "again.html"
    assert cli(["report", str(run.root), "--output", str(again)]) == 0
    assert again.read_text() == page
    capsys.readouterr()
    assert cli(["report", str(run.root), "--output", str(again)]) == 3
    # long paths break the line
    assert "exists already" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SettingsError, match="there is no run"):
        report(RunFolder(root=tmp_path))
    # as a checkpoint has one
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(SettingsError, match="there is no run"):
        report(RunFolder(root=tmp_path))
    later.manifest.write_text("{")
    with pytest.raises(SettingsError, match=r"manifest\.json cannot be read"):
        report(later)


def test_a_run_that_has_not_ended_has_a_page_too(run: RunFolder, tmp_path: Path):
    unfinished = RunFolder(root=tmp_path / "unfinished")
    shutil.copytree(run.root, unfinished.root, ignore=shutil.ignore_patterns("*.html"))
    unfinished.result.unlink()
    unfinished.comparison.unlink()
    shutil.rmtree(unfinished.evaluations)
    with (unfinished.logs / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')
    recipe = unfinished.recipe.read_text()
    unfinished.recipe.write_text(recipe.replace("bookings-data", "gone"))
    page = report(unfinished).read_text()
    assert "has not ended" in page
    assert "Learning rate" in page
    assert "Comparison" not in page


def test_rows_whose_tokens_were_not_counted(run: RunFolder, tmp_path: Path):
    other = RunFolder(root=tmp_path / "other")
    shutil.copytree(run.root, other.root, ignore=shutil.ignore_patterns("*.html"))
    described = json.loads((rows_of(run) / "dataset.json").read_text())
    del described["tokens"]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "dataset.json").write_text(json.dumps(described))
    other.recipe.write_text(f"dataset:\n  data_files: {tmp_path / 'rows' / 'train.jsonl'}\n")
    page = report(other).read_text()
    assert "1,045" in page
    assert "Lengths of rows" not in page


def rows_of(run: RunFolder) -> Path:
    """The folder of the run's rows."""
    return run.root.with_name(f"{run.root.name}-data")


def test_evaluations_on_other_samples_are_named(run: RunFolder, tmp_path: Path):
    other = RunFolder(root=tmp_path / "other")
    shutil.copytree(run.root, other.root, ignore=shutil.ignore_patterns("*.html"))
    found = json.loads(other.evaluation("8da4w").read_text())
    found["samples"]["bookings"].pop()
    found["label"] = "few"
    other.evaluation("few").write_text(json.dumps(found))
    assert "scored on other samples: few" in report(other).read_text()


def test_any_label_and_an_evaluation_without_answers_have_their_place(
    run: RunFolder, tmp_path: Path
):
    other = RunFolder(root=tmp_path / "other")
    shutil.copytree(run.root, other.root, ignore=shutil.ignore_patterns("*.html"))
    label = 'half <"$price$"> $\\frac'
    found = json.loads(other.evaluation("8da4w").read_text()) | {"label": label}
    other.evaluation("odd").write_text(json.dumps(found))
    likelihoods = json.loads(other.evaluation("8da4w").read_text()) | {"label": "likelihoods"}
    likelihoods["scores"] = {"bookings/loss": likelihoods["scores"]["bookings/loss"]}
    other.evaluation("likelihoods").write_text(json.dumps(likelihoods))
    page = report(other).read_text()
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert 'aria-label="half &lt;&quot;$price$&quot;&gt; $\\frac - base' in drawn
    assert "<text" in drawn
    ElementTree.fromstring(f"<all>{drawn}</all>")
    assert "likelihoods" in page


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (2e-5, "2e-5"), (0.25, "0.25"), (1234, "1,234"), (15_000, "15k")]
)
def test_numbers_on_axes_are_short(value: float, text: str):
    assert charts.short(value) == text


def test_numbers_in_tables_have_enough_digits_to_tell():
    assert [number(value) for value in (1234567, 1234.5, 0.00123456, "x")] == [
        "1,234,567", "1,234", "0.001235", "x",
    ]  # fmt: skip
    assert [duration(value) for value in (9.4, 75, 7300)] == ["9 s", "1 min 15 s", "2 h 01 min"]


def test_a_smoothed_curve_begins_where_the_values_do():
    assert charts.smoothed([3.0, 3.0, 3.0]) == pytest.approx([3.0] * 3)
    assert charts.smoothed([4.0, 0.0])[0] == pytest.approx(4.0)
