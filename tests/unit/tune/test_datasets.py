"""entrypoint.tune.datasets: rows of a file, one at a time."""

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.tune import compat

compat.apply()

from entrypoint.tune import datasets  # noqa: E402
from entrypoint.tune.datasets import ChatDataset, PreferenceDataset, Rows  # noqa: E402
from entrypoint.tune.tokenizer import ChatTokenizer  # noqa: E402


@pytest.mark.parametrize("end", ["\n", "", "\r\n", "\n\n  \n"])
def test_rows_are_read_by_number(tiny_model: Path, tmp_path: Path, end: str):
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Où est {city}?"},
                    {"role": "assistant", "content": city},
                ]
            },
            ensure_ascii=False,
        )
        for city in ("Oslo", "Málaga", "Łódź")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(("\n\n".join(lines) + end).encode())
    tokenizer = ChatTokenizer(str(tiny_model))
    rows = ChatDataset(tokenizer, str(path))
    assert len(rows) == 3
    for index, city in ((2, "Łódź"), (0, "Oslo"), (1, "Málaga")):
        row = rows[index]
        trained = [label for label in row["labels"] if label != -100]
        assert tokenizer.tokenizer.decode(trained).startswith(city)
        assert len(row["tokens"]) == len(row["labels"])


@pytest.mark.parametrize("at_once", [1, 7, 4 << 20])
def test_rows_are_found_in_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int):
    monkeypatch.setattr(datasets, "SCANNED_AT_ONCE", at_once)
    path = tmp_path / "rows.jsonl"
    for content in (b'{"n": 0}', b'\n\n {"n": 0}\r\n  \n{"n": 1}\n', b'{"n": 0}\n{"n": 1}\n \t\n'):
        path.write_bytes(content)
        rows = Rows(path)
        assert [row["n"] for row in rows] == list(range(content.count(b'n"')))
        assert rows[-1]["n"] == len(rows) - 1
        assert rows[:1] == [{"n": 0}]
        with pytest.raises(IndexError):
            rows[len(rows)]


def test_labels_are_where_the_tokenizer_says(tiny_model: Path, rows: Path):
    tokenizer = ChatTokenizer(str(tiny_model))
    row = ChatDataset(tokenizer, str(rows))[0]
    tokens, mask = tokenizer.tokenize(json.loads(rows.read_text().splitlines()[0])["messages"])
    assert row["tokens"] == tokens
    assert row["labels"] == [
        -100 if masked else token for token, masked in zip(tokens, mask, strict=True)
    ]


@pytest.mark.parametrize("train_on", ["all", "last"])
def test_only_the_answers_of_a_pair_are_learned(train_on: Any, tiny_model: Path, tmp_path: Path):
    """Not what the assistant has said in the prompt; cut where rows are cut."""
    row = {
        "prompt": [
            {"role": "user", "content": "Où?"},
            {"role": "assistant", "content": "Quand?"},
            {"role": "user", "content": "Demain."},
        ],
        "chosen": [{"role": "assistant", "content": "Oslo"}],
        "rejected": [{"role": "assistant", "content": "Rome or so"}],
    }
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n")
    tokenizer = ChatTokenizer(str(tiny_model), train_on=train_on)
    found = PreferenceDataset(tokenizer, str(path))[0]
    for side, answer in (("chosen", "Oslo<|im_end|>"), ("rejected", "Rome or so<|im_end|>")):
        trained = [label for label in found[f"{side}_labels"] if label != -100]
        assert tokenizer.tokenizer.decode(trained) == answer
        text = tokenizer.tokenizer.decode(found[f"{side}_input_ids"])
        assert "Quand?" in text
    longest = len(found["chosen_input_ids"]) - 1
    cut = PreferenceDataset(ChatTokenizer(str(tiny_model), longest), str(path))[0]
    assert len(cut["chosen_input_ids"]) == longest == len(cut["chosen_labels"])
