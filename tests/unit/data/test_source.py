"""entrypoint.data.source: finding and checking files of rows."""

import hashlib
from pathlib import Path

import pytest

from entrypoint.data.source import load
from entrypoint.errors import DataError

ROW = '{"prompt": "q", "completion": "a"}\n'


def test_the_embedded_rows():
    found = load("embedded")
    assert (found.train.rows, found.evaluation.rows) == (1_000, 200)


def test_a_file_alone_has_no_held_out_rows(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW + "\n" + ROW)
    found = load(str(path))
    assert (found.train.rows, found.evaluation) == (2, None)
    assert found.train.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.train.longest == 2


def test_a_folder_may_hold_both(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text(ROW)
    assert load(str(tmp_path)).evaluation is None
    (tmp_path / "eval.jsonl").write_text(ROW)
    assert load(str(tmp_path)).evaluation.rows == 1


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"", ["has no rows"]),
        (b"\n\n", ["has no rows"]),
        (ROW.encode() + b'{"prompt": "q"\n', ["line 2", "not a JSON object"]),
        (ROW.encode() + b"[1]\n", ["line 2", "not list"]),
        (ROW.encode() * 2 + b'{"a": 1}\n', ["line 3", "columns a are of no known shape"]),
        (b'{"prompt": "\xff", "completion": "a"}\n', ["line 1", "not UTF-8"]),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, messages: list[str]):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        load(str(path))
    for message in (str(path), *messages):
        assert message in str(error.value)


def test_nothing_there(tmp_path: Path):
    with pytest.raises(DataError, match=r"no data at .*nowhere"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no train\.jsonl"):
        load(str(tmp_path))
