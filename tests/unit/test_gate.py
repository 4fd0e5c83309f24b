"""entrypoint.gate: the grammar of conditions, and what they say of scores."""

import pytest

from entrypoint.errors import ExitCode, SettingsError
from entrypoint.gate import GateError, enforce, judge, parse
from entrypoint.settings import Settings

SCORES = {
    "base": {"rows/exact_match": 0.5, "rows/loss": 2.0, "other/exact_match": 0.1},
    "tuned": {"rows/exact_match": 0.495, "rows/loss": 1.0, "other/exact_match": 0.3},
    "8da4w": {"rows/exact_match": 0.4, "rows/loss": 1.25, "other/exact_match": 0.3},
    "step-100": {"rows/exact_match": 0.6, "rows/loss": 0.5, "other/exact_match": 0.3},
}


@pytest.mark.parametrize(
    ("text", "failing"),
    [
        ("rows/exact_match>=base-0.01", {"8da4w"}),
        ("rows/exact_match >= base - 1e-2", {"8da4w"}),
        ("rows/exact_match>=0.45", {"8da4w"}),
        ("rows/loss<=tuned+0.3", set()),
        ("rows/loss<tuned", {"8da4w"}),
        ("rows/loss > .75", {"step-100"}),
        # a label that looks like a label with an offset
        ("rows/loss<step-100", {"tuned", "8da4w"}),
        ("rows/loss<=step-100+0.5", {"8da4w"}),
        # of every task that has it
        ("exact_match>=base", {"tuned", "8da4w"}),
    ],
)
def test_a_condition_holds_for_all_models_but_the_first_and_the_named(text: str, failing: set[str]):
    verdicts = judge([parse(text)], SCORES)
    assert {one.label for one in verdicts if not one.holds} == failing
    assert "base" not in {one.label for one in verdicts}


@pytest.mark.parametrize(
    "text",
    ["", "exact_match", "exact_match=0.5", "exact_match=>0.5", ">=0.5", "a>=", "a>=b>=c", "a>=1-2",
     "a == 1"],
)  # fmt: skip
def test_what_is_no_condition_is_refused_before_any_work(text: str):
    with pytest.raises(SettingsError, match="is no condition") as caught:
        Settings(then=("eval",), gates=(text,))
    assert caught.value.exit_code == 3
    assert "exact_match>=base-0.01" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows/loss<=bse-0.1", "bse is neither a number nor a model; the models are base, tuned"),
        ("rows/bleu>=1", "no score rows/bleu"),
        ("accuracy>=1", "the scores are rows/exact_match, rows/loss"),
    ],
)
def test_what_a_condition_names_must_be_there(text: str, words: str):
    with pytest.raises(SettingsError) as caught:
        judge([parse(text)], SCORES)
    assert words in str(caught.value)


def test_a_condition_that_nothing_has_to_meet_is_refused():
    with pytest.raises(SettingsError, match="no model is left"):
        parse("loss<=tuned").applies_to(["base", "tuned"])


def test_failing_says_which_condition_failed_by_how_much():
    gates = [parse("rows/exact_match>=base-0.01"), parse("rows/loss<=2")]
    verdicts = judge(gates, SCORES)
    with pytest.raises(GateError) as caught:
        enforce(verdicts, "compare.json")
    assert caught.value.exit_code == ExitCode.GATE == 8
    assert "1 of 6 conditions failed" in str(caught.value)
    assert "rows/exact_match of 8da4w is 0.4, 0.09 off the bound 0.49" in str(caught.value)
    enforce([one for one in verdicts if one.holds], "compare.json")


def test_a_score_that_the_named_model_does_not_have():
    scores = {"base": {"rows/loss": 2.0}, "tuned": {"rows/loss": 1.0, "rows/exact_match": 0.5}}
    with pytest.raises(SettingsError, match="base has no score rows/exact_match"):
        judge([parse("exact_match>=base")], scores)
