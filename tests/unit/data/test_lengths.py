"""entrypoint.data.lengths: rows in tokens, as training has them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from entrypoint.data.chat import Chat
from entrypoint.data.dataset import Dataset
from entrypoint.data.lengths import look
from tests.unit.factories import dataset

GREETING = "{{ bos_token }}You are a helpful assistant of Ada's.\n"
ROWS = [
    {
        "messages": [
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "Oslo " * words},
        ]
    }
    for words in (1, 30, 4)
]


def of(rows: list[dict[str, Any]], folder: Path, **changes: Any) -> Dataset:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    longest = max(len(json.dumps(row)) for row in rows)
    found = dataset(len(rows))
    return replace(found, train=replace(found.train, path=path, longest=longest), **changes)


def test_rows_have_the_tokens_that_training_reads(tiny_model: Path, tmp_path: Path):
    """Also where the chat template writes more than there is in the row."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    template = folder / "chat_template.jinja"
    template.write_text(GREETING + template.read_text())
    expected = Chat(str(folder)).encode([(row["messages"], None) for row in ROWS])
    found = look(of(ROWS, tmp_path), folder, 2048)
    assert found.counted
    assert [list(one.tokens) for (one,) in found.rows] == [one.ids for one in expected]
    assert [one.labels for (one,) in found.rows] == [one.trained_within(None) for one in expected]
    assert found.longest == len(expected[1].ids)


def test_a_cut_row_is_trained_on_what_is_left_of_its_answer(tiny_model: Path, tmp_path: Path):
    limit = 24
    expected = Chat(str(tiny_model)).encode([(row["messages"], None) for row in ROWS])
    found = look(of(ROWS, tmp_path), tiny_model, limit)
    assert len(expected[1].ids) > limit
    for (one,), exact in zip(found.rows, expected, strict=True):
        # a line break may follow the answer
        assert exact.trained_within(limit) - one.labels in (0, 1)
    text = of([{"text": "Oslo " * 200}], tmp_path, task="text")
    ((cut,),) = look(text, tiny_model, limit).rows
    assert (len(cut.tokens), cut.labels) == (limit, limit)


def test_a_row_that_the_template_refuses_is_counted_without_it(tiny_model: Path, tmp_path: Path):
    """It is refused by name when all rows are looked at."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    template = folder / "chat_template.jinja"
    refuses = "{% if messages | length > 1 %}{{ raise_exception('no') }}{% endif %}"
    plain = look(of(ROWS, tmp_path), folder, 2048)
    template.write_text(refuses + template.read_text())
    found = look(of(ROWS, tmp_path), folder, 2048)
    for (one,), (other,) in zip(found.rows, plain.rows, strict=True):
        assert 0.7 < len(one.tokens) / len(other.tokens) < 1.3
