"""The built-in data set: what the generator promises."""

import json
from pathlib import Path

import pytest

from entrypoint.data import embedded
from entrypoint.data.embedded.generate import main
from entrypoint.data.rows import to_messages

FOLDER = Path(embedded.__file__).parent
FILES = ("sft/train.jsonl", "sft/eval.jsonl", "preference/train.jsonl", "preference/eval.jsonl")
KEYS = ["name", "date", "amount", "place"]


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


def answers(split: str) -> list[dict]:
    return [json.loads(to_messages(row)[-1]["content"]) for row in rows(f"sft/{split}.jsonl")]


def test_the_shipped_files_are_what_the_generator_writes(tmp_path: Path):
    main(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize(("split", "count"), [("train", 1_000), ("eval", 200)])
def test_answers_are_one_line_of_json_with_fixed_keys(split: str, count: int):
    found = rows(f"sft/{split}.jsonl")
    assert len(found) == count
    for row in found:
        answer = to_messages(row)[-1]["content"]
        assert "\n" not in answer
        assert list(json.loads(answer)) == KEYS


def test_splits_share_no_combination_of_entities():
    train, held_out = answers("train"), answers("eval")
    for keys in (["name"], KEYS[1:]):
        combination = lambda facts: tuple(facts[key] for key in keys)  # noqa: B023, E731
        assert not {combination(facts) for facts in train} & {
            combination(facts) for facts in held_out
        }
    requests = {to_messages(row)[-2]["content"] for row in rows("sft/train.jsonl")}
    assert not requests & {to_messages(row)[-2]["content"] for row in rows("sft/eval.jsonl")}


def test_the_facts_can_be_found_in_the_request():
    for row, facts in zip(rows("sft/eval.jsonl"), answers("eval"), strict=True):
        request = to_messages(row)[-2]["content"]
        assert facts["name"] in request
        assert facts["place"] in request
        assert str(facts["amount"]) in request
        assert facts["date"][:4] in request


@pytest.mark.parametrize("split", ["train", "eval"])
def test_preference_pairs_come_from_the_same_source_and_differ(split: str):
    for pair, row in zip(
        rows(f"preference/{split}.jsonl"), rows(f"sft/{split}.jsonl"), strict=True
    ):
        assert [*pair["prompt"], *pair["chosen"]] == row["messages"]
        assert pair["chosen"] != pair["rejected"]
