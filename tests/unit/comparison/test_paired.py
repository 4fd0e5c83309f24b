"""entrypoint.comparison.paired: the same samples, pair by pair."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.comparison.paired import COMPARISON_VERSION, compare, record
from entrypoint.errors import DataError
from entrypoint.evaluation.request import Evaluation, Metric


def evaluation(label: str, right: str, **values: Any) -> Evaluation:
    """One sample for each letter, r or w."""
    samples = [
        {
            "doc_id": index,
            "doc_hash": f"hash {index}",
            "prompt": f"question {index}",
            "target": "yes",
            "answer": "yes" if letter == "r" else f"no, says {label}",
            "scores": {
                "exact_match": float(letter == "r"),
                "loss": (1.0 if letter == "r" else 2.0 + index / 10, 1),
            },
        }
        for index, letter in enumerate(right)
    ]
    loss = sum(one["scores"]["loss"][0] for one in samples) / len(samples)
    return Evaluation(
        label=label,
        checkpoint=Path("/m"),
        scores={"t/exact_match": right.count("r") / len(right), "t/loss": loss},
        rows={"t": len(right)},
        metrics={
            "t/exact_match": Metric(aggregation="mean"),
            "t/loss": Metric(aggregation="ratio", higher_is_better=False),
        },
        samples={"t": samples},
        **values,
    )


BASE, TUNED, SMALL = (
    evaluation("base", "wwwwwwwwrr"),
    evaluation("tuned", "rrrrrrrrrw"),
    evaluation("8da4w", "rrrrrrrrww"),
)


def test_each_model_against_the_first_and_copies_against_the_second():
    found = compare([BASE, TUNED, SMALL])
    assert [(one.label, one.against, one.score) for one in found.differences] == [
        (label, against, f"t/{metric}")
        for label, against in (("tuned", "base"), ("8da4w", "base"), ("8da4w", "tuned"))
        for metric in ("exact_match", "loss")
    ]
    first, loss, *_ = found.differences
    assert first.difference == pytest.approx(0.7)
    assert first.low is not None
    assert first.high is not None
    assert first.low < 0.7 < first.high
    assert (first.won, first.lost, first.verdict) == (8, 1, "better")
    # a lower loss is the better one
    assert (loss.difference < 0, loss.verdict, loss.p_value) == (True, "better", None)
    assert found.differences[4].verdict == "unclear"
    backwards = compare([TUNED, BASE]).differences
    assert backwards[0].verdict == backwards[1].verdict == "worse"


def test_the_samples_that_changed_most_come_first_with_all_answers():
    found = compare([BASE, TUNED, SMALL]).changes
    better = [one for one in found if one.label == "tuned" and one.direction == "better"]
    # all eight are right now; of those, the ones whose loss fell most
    assert [one.doc_id for one in better] == [7, 6, 5, 4, 3]
    (worse,) = (one for one in found if one.label == "tuned" and one.direction == "worse")
    assert (worse.doc_id, worse.prompt, worse.target) == (9, "question 9", "yes")
    assert worse.answers == {"base": "yes", "tuned": "no, says tuned", "8da4w": "no, says 8da4w"}
    assert [one.doc_id for one in found if one.against == "tuned"] == [8]


def changed(field: str, value: Any) -> Evaluation:
    samples = copy.deepcopy(dict(TUNED.samples))
    samples["t"][3][field] = value
    return dataclasses.replace(TUNED, samples=samples)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (changed("doc_hash", "other"), "t: sample 3 of base is not the one of tuned"),
        (evaluation("tuned", "rr"), "t: base has 10 samples and tuned 2"),
        (dataclasses.replace(TUNED, samples={"u": TUNED.samples["t"]}), "scored on t, tuned on u"),
    ],
)
def test_other_samples_are_refused_by_name(other: Evaluation, words: str):
    with pytest.raises(DataError) as caught:
        compare([BASE, other])
    assert words in str(caught.value)


def test_the_record_is_json_with_its_keys():
    written = json.loads(json.dumps(record(compare([BASE, TUNED]), ())))
    assert written.keys() == {
        "version", "base", "rows", "models", "bootstrap", "differences", "changes", "gates",
    }  # fmt: skip
    assert written["version"] == COMPARISON_VERSION
    assert written["differences"][0].keys() == {
        "label", "against", "score", "rows", "before", "after", "difference", "low", "high",
        "p_value", "won", "lost", "higher_is_better", "verdict",
    }  # fmt: skip
    assert written["changes"][0].keys() == {
        "task", "label", "against", "doc_id", "direction", "prompt", "target", "answers", "scores",
    }  # fmt: skip
    assert written["models"]["tuned"].keys() == {
        "checkpoint", "adapter", "weights_bytes", "performance", "scores",
    }  # fmt: skip


def test_a_sample_without_an_answer_is_left_out_of_what_is_said_of_answers():
    samples = copy.deepcopy(dict(BASE.samples))
    del samples["t"][0]["scores"]["exact_match"]
    base = dataclasses.replace(BASE, samples=samples)
    first, loss = compare([base, TUNED]).differences
    assert (first.rows, loss.rows) == (9, 10)
