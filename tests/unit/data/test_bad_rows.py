"""entrypoint.data.prepare: what is no data set is refused, with file, line and field."""

from pathlib import Path

import pytest

from entrypoint.data import json_rows
from entrypoint.errors import DataError, SettingsError
from tests.unit.data.sets import (
    WRITERS,
    lines,
    preferred,
    read,
    run,
    sft,
    turn,
)


def refused(path: Path, content: bytes, words: list[str]) -> DataError:
    """The error about a file with that content, which names the file and says the words."""
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        run(path, path.with_name("out"))
    for word in (str(path), *words):
        assert word in str(error.value)
    return error.value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["no rows"]),
        (b"\n\n", ["no rows"]),
        (lines([sft(1)]) + b'\n{"messages": [\n', ["line 3", "not a JSON object"]),
        (lines([sft(1)]) + b"[1]\n", ["line 2", "not list"]),
        (lines([sft(1)]) + b'{"prompt": "q", "completion": "a"}\n', ["line 2", "mixed shapes"]),
        (lines([{"prompt": "q", "completion": "a"}, {"prompt": 3, "completion": "a"}]),
         ["line 2", "prompt is a number, not text"]),
        (lines([sft(1), {"messages": "q"}]), ["line 2", "messages is text, not messages"]),
        (lines([sft(1), {"messages": ["q"]}]), ["line 2", "a list, not messages"]),
        (lines([{"promt": "q", "completion": "a"}]),
         ["promt, completion are of no known shape", "prepare --columns prompt=promt"]),
        (lines([{"prompt": "q", "completion": "a", "label": True}]), ["KTO"]),
        (b'{"prompt": "\xff", "completion": "a"}\n', ["line 1", "not UTF-8"]),
        (lines([{"prompt": "q", "completion": "a"}] * 300)
         + b'{"prompt": "\xff", "completion": "a"}\n',
         ["line 301", "not UTF-8"]),
        ('{"prompt": "q"}'.encode("utf-16"), ["UTF-16"]),
        (b'{"prompt": "\\ud800", "completion": "a"}\n', ["line 1", "half a character"]),
        (lines([preferred(1), preferred(2) | {"rejected": preferred(2)["chosen"]}]),
         ["line 2", "equals its rejected"]),
        (lines([sft(1), {"messages": []}]), ["line 2", "empty"]),
        (lines([{"prompt": "q", "completion": " \u3000\n"}]), ["line 1", "empty"]),
        (lines([{"prompt": "q", "completion": None}, {"prompt": "q", "completion": "a"}]),
         ["line 1", "empty"]),
        (lines([{"messages": [turn("human", "q"), turn("assistant", "a")]}]), ["line 1", "a role"]),
        (lines([{"messages": [turn("assistant", "q"), turn("user", "a")]}]), ["line 1", "(roles)"]),
        (lines([{"messages": [turn("user", "q"), turn("user", "a"), turn("assistant", "a")]}]),
         ["line 1", "same side twice"]),
        (lines([{"messages": [turn("user", "q"), turn("system", "s"), turn("assistant", "a")]}]),
         ["line 1", "(order)"]),
        (lines([{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}]),
         ["line 1", "image_url, not text"]),
        (b'[{"prompt": "q", "completion": "a"}, {"prompt": ', ["row 2", "array"]),
        (b'[{"prompt": "q", "completion": "a"}, 3]', ["row 2", "not int"]),
        (b'[{"prompt": "q", "completion": "a"}] x', ["row 1", "'x' follows the end"]),
        (b'[{"prompt": "q", "completion": "a"} {}]', ["row 1", "a comma or ] belongs"]),
        (b'[{"prompt": "q", "completion": "a"},]', ["row 2", "array"]),
        (b'[{"prompt": "q", "completion": "a"}', ["row 1", "cut short"]),
        ('{"prompt": "q"}'.encode("utf-16-le"), ["it is UTF-16", "iconv"]),
        (b'{"prompt": "q", "completion": "\xc3', ["line 1", "middle of a character"]),
        (lines([{"prompt": "q", "completion": "a", "label": 1}]), ["KTO"]),
        (lines([{"question": "q", "choices": ["a", "b"], "answer": 1}]), ["multiple choice"]),
        (lines([{"chosen": "a", "rejected": "b"}]), ["no column has the question"]),
        (lines([{"rows": [{"prompt": "q", "completion": "a"}]}]), ["jq -c '.rows'"]),
        (lines([{"prompt": ["q"], "completion": "a"}]), ["prompt holds lists"]),
        (lines([{"messages": "q"}]), ["line 1", "nor are they written in it as JSON"]),
        (lines([{"messages": '{"role": "user"}'}]), ["line 1", "an object in JSON"]),
    ],
)  # fmt: skip
def test_bad_input_is_named(tmp_path: Path, content: bytes, words: list[str]):
    error = refused(tmp_path / "rows.json", content, words)
    assert error.hint or not content.strip() or content.startswith(b"[")


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"instruction": "q", "output": " "}, "output (empty)"),
        ({"system": "s", "ask": " ", "reply": "a"}, "ask (empty)"),
        ({"text": ""}, "text (empty)"),
        ({"prompt": "q", "chosen": "a", "rejected": ""}, "rejected (empty)"),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen and rejected (same)"),
        ({"messages": []}, "messages (empty)"),
        ({"messages": [turn("user", "q"), turn("assistant", "")]}, "messages, message 2 (empty)"),
        ({"messages": [turn("human", "q"), turn("assistant", "a")]},
         "messages, message 1, role human (roles)"),
        ({"messages": [turn("user", "q")]}, "messages, message 1, the last, role user (roles)"),
        ({"system": "s", "messages": [turn("user", "q"), turn("user", "r"), turn("assistant", "")]},
         "messages, message 3 (empty)"),
        ({"messages": [turn("user", "q"), turn("system", "s"), turn("assistant", "a")]},
         "messages, message 2 (order)"),
        ({"prompt": [turn("user", "q"), turn("assistant", "a")], "chosen": [turn("assistant", "b")],
          "rejected": [turn("assistant", "c")]}, "chosen (order)"),
    ],
)  # fmt: skip
def test_an_error_names_the_field(tmp_path: Path, row: dict, place: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([row]))
    named = {"question": "ask", "answer": "reply"} if "ask" in row else {}
    with pytest.raises(DataError) as error:
        run(path, tmp_path / "out", columns=named)
    field, _, check = place.rpartition(" ")
    assert str(error.value.where) == f"{path}, line 1, {field}"
    assert check in str(error.value)


def test_a_bad_line_is_named_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_rows, "CHUNK_BYTES", 2_000)
    path = tmp_path / "rows.jsonl"
    good = lines([sft(n) for n in range(500)])
    path.write_bytes(good + b"\n" + lines([sft(n) for n in range(500, 700)]) + b'{"messages": 1}\n')
    with pytest.raises(DataError, match="line 702"):
        run(path, tmp_path / "out")
    path.write_bytes(good)
    run(path, tmp_path / "out")
    assert read(tmp_path / "out" / "train.jsonl") == [sft(n) for n in range(500)]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.jsonl.gz", "rows.jsonl.xz"])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, name: str):
    path = tmp_path / name
    WRITERS[name](path, [sft(n) for n in range(2000)])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cut short") as error:
        run(path, tmp_path / "out")
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"prompt,completion\nq,a\nq,a,b\n", ["row 2", "Expected 2 columns, got 3"]),
        (b'prompt,completion\n"q\nq",a\nq,\xff\n', ["row 2, column completion", "UTF-8", "iconv"]),
        (b'prompt,completion\nq,"a\nr,b\n', ["row 1, column completion", "never closed"]),
        (b'prompt,completion\nq,"a ""so"" ', ["row 1, column completion", "never closed"]),
        (b'prompt,completion\nq,"a\n' + b"r,b\n" * 2000, ["row 1,", "never closed"]),
        (b"prompt,completion\nq,\n", ["row 1, completion", "empty"]),
        (b"what is one,1\nwhat is two,2\n", ["no known shape", "a line of column names"]),
    ],
)
def test_a_file_that_is_no_csv_is_named_with_row_and_column(
    tmp_path: Path, content: bytes, words: list[str]
):
    refused(tmp_path / "rows.csv", content, words)


def test_a_missing_column_names_those_there_are(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([{"instruction": "q", "outptu": "a"}]))
    with pytest.raises(DataError) as error:
        run(path, tmp_path / "out", format="alpaca")
    for word in ("no column for output", "did you mean outptu?", "instruction, outptu"):
        assert word in str(error.value)
    with pytest.raises(DataError, match="did you mean outptu"):
        run(path, tmp_path / "out", columns={"output": "output"})
    with pytest.raises(SettingsError, match="did you mean output"):
        run(path, tmp_path / "out", columns={"outptu": "outptu"})
