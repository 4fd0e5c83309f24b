"""entrypoint.evaluation.expected: the samples that lm-eval will give."""

import json
from pathlib import Path

from lm_eval.utils import handle_non_serializable, hash_string

from entrypoint.evaluation.expected import document_hash, samples
from entrypoint.evaluation.request import Rows
from tests.unit.data.sets import lines, sft

ROWS = [sft(number) | {"note": "né\u2028"} for number in range(3)]


def test_a_document_has_the_hash_that_lm_eval_gives_it():
    for row in ROWS:
        text = json.dumps(row, indent=2, default=handle_non_serializable, ensure_ascii=False)
        assert document_hash(row) == hash_string(text)


def test_samples_are_the_rows_up_to_the_limit(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(ROWS))
    rows = Rows(name="rows", path=path, kind="sft", max_seq_len=9)
    (found,) = samples(rows, 2).values()
    assert [one["doc_id"] for one in found] == [0, 1]
    assert [one["doc_hash"] for one in found] == [document_hash(row) for row in ROWS[:2]]
    assert len(samples(rows, None)["rows"]) == 3
