"""Files as people have them: other names, other writers, other years."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from entrypoint.data import json_rows, readers
from entrypoint.data.dataset import find
from entrypoint.errors import DataError
from tests.unit.data.sets import NESTED, lines, read, run, said, sft, turn

ANSWERED = [turn("user", "q"), turn("assistant", "a")]


def converted(tmp_path: Path, content: bytes, name: str = "rows.jsonl", **asked: Any) -> list[dict]:
    path = tmp_path / name
    path.write_bytes(content)
    run(path, tmp_path / "out", **asked)
    return read(tmp_path / "out" / "train.jsonl")


@pytest.mark.parametrize(
    "row",
    [
        {"Instruction": "q", "OUTPUT": "a"},
        {"prompt": "q", "response": "a"},
        {"input": "q", "output": "a"},
        {"query": "q", "response": "a", "id": 3, "meta": {"x": [1]}},
        {"conversations": said(("Human", "q"), ("GPT", "a"))},
        {"conversations": said((" user", "q"), ("Assistant", "a"))},
        {"conversations": ANSWERED},
        {"messages": said(("prompter", "q"), ("bot", "a"))},
        {"messages": json.dumps(ANSWERED)},
        {"prompt": [turn("user", "q")], "completion": [turn("assistant", "a")]},
    ],
)
def test_rows_that_mean_the_same(tmp_path: Path, row: dict):
    assert converted(tmp_path, lines([row])) == [{"messages": ANSWERED}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_numbers_are_written_as_they_stand(tmp_path: Path, name: str):
    values = [2, 9_007_199_254_740_993, -1]
    rows = [{"question": f"q{n}", "answer": value} for n, value in enumerate(values)]
    path = tmp_path / name
    if name == "a.parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = {"a.jsonl": lines(rows).decode(), "a.json": json.dumps(rows)}
        path.write_text(
            text.get(name) or "question,answer\n" + "".join(f"q,{value}\n" for value in values)
        )
    run(path, tmp_path / "out")
    found = [row["messages"][1]["content"] for row in read(tmp_path / "out" / "train.jsonl")]
    assert found == [str(value) for value in values]


def test_truths_and_fractions_are_text_too(tmp_path: Path):
    rows = [{"question": "q", "answer": value} for value in (True, False)]
    assert [row["messages"][1]["content"] for row in converted(tmp_path, lines(rows))] == [
        "true", "false",
    ]  # fmt: skip
    path = tmp_path / "more.jsonl"
    path.write_bytes(lines([{"question": "q", "answer": value} for value in (0.5, 2, 1e20)]))
    run(path, tmp_path / "more")
    answers = [row["messages"][1]["content"] for row in read(tmp_path / "more" / "train.jsonl")]
    assert answers == ["0.5", "2", "1e+20"]
    path.write_bytes(lines([{"question": "q", "answer": value} for value in (1, "two")]))
    with pytest.raises(DataError, match="answer is text, not a number"):
        run(path, tmp_path / "mixed")


@pytest.mark.parametrize("shape", [name for name in NESTED if not name.startswith("preference")])
def test_conversations_in_a_csv_are_json(tmp_path: Path, shape: str):
    make, expect = NESTED[shape]
    rows = [make(n) for n in range(5)]
    name = "conversations" if "conversations" in rows[0] else "messages"
    table = pa.table(
        {name: [json.dumps(row[name]) for row in rows]}
        | ({"system": [row["system"] for row in rows]} if "system" in rows[0] else {})
    )
    pa.csv.write_csv(table, tmp_path / "rows.csv")
    run(tmp_path / "rows.csv", tmp_path / "out")
    assert read(tmp_path / "out" / "train.jsonl") == [expect(n) for n in range(5)]


def test_roles_and_calls_of_older_requests(tmp_path: Path):
    call = {"name": "f", "arguments": "{}"}
    conversation = [
        turn("developer", "s"),
        turn("user", "q"),
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "f", "content": "3"},
        turn("assistant", "a"),
    ]
    (found,) = converted(tmp_path, lines([{"messages": conversation}]))
    assert [message["role"] for message in found["messages"]] == [
        "system", "user", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert json.loads(found["messages"][2]["tool_calls"]) == [
        {"type": "function", "function": call}
    ]
    table = pa.Table.from_pylist([{"messages": conversation}])
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    run(tmp_path / "rows.parquet", tmp_path / "columns")
    assert read(tmp_path / "columns" / "train.jsonl") == [found]


def test_reasoning_and_weights_are_kept_and_other_keys_are_told(tmp_path: Path):
    answer = turn("assistant", "a") | {"reasoning_content": "because", "weight": 0}
    row = {"messages": [turn("user", "q"), answer, *ANSWERED], "id": 1}
    odd = {"messages": [turn("user", "q") | {"mood": "good"}, turn("assistant", "b")]}
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([row, odd, sft(1)]))
    for name in ("rows.jsonl", "rows.parquet"):
        prepared = run(tmp_path / name, tmp_path / f"out of {name}")
        first = read(tmp_path / f"out of {name}" / "train.jsonl")[0]["messages"][1]
        assert first == turn("assistant", "a") | {"reasoning_content": "because", "weight": "0"}
        found = prepared.findings.by_check["unread"]
        assert found.count == 1
        assert "2, messages" in found.examples[0]
        assert prepared.unread == ("id",)
        table = pa.Table.from_pylist([row, odd | {"id": None}, sft(1) | {"id": None}])
        pa.parquet.write_table(table, tmp_path / "rows.parquet")


def test_names_that_say_nothing_or_the_wrong_thing(tmp_path: Path):
    rows = lines([sft(n) for n in range(3)])
    expected = [sft(n) for n in range(3)]
    for name, content in (
        ("a.jsonl", gzip.compress(rows)), ("b.txt", rows), ("c.json", b"\xef\xbb\xbf" + rows),
        ("d.jsonl", rows.replace(b"\n", b"\r\n\r\n")), ("e", gzip.compress(rows)),
    ):  # fmt: skip
        path = tmp_path / name
        path.write_bytes(content)
        run(path, tmp_path / f"out-{name}")
        assert read(tmp_path / f"out-{name}" / "train.jsonl") == expected
    (tmp_path / "f.txt").write_text("A text.\nAnother one.\n")
    with pytest.raises(DataError, match="plain text has no rows"):
        run(tmp_path / "f.txt", tmp_path / "out")
    pattern = tmp_path / "some"
    pattern.mkdir()
    (pattern / "rows.jsonl").write_bytes(rows)
    (pattern / "README.md").write_text("Rows.")
    assert run(f"{pattern}/*", tmp_path / "out-pattern").rows == 3


def test_semicolons_separate_where_commas_do_not(tmp_path: Path):
    found = converted(tmp_path, b"prompt;completion\nq, so;a\n", "rows.csv")
    assert found[0]["messages"][0]["content"] == "q, so"


def test_of_several_held_out_parts_one_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, name in enumerate(("train", "test", "validation")):
        (folder / f"{name}.jsonl").write_bytes(lines([sft(number)]))
    found = find(str(folder), None, {}, tmp_path)
    assert "test.jsonl is left out" in capsys.readouterr().err
    assert [path.name for path in found.evaluation] == ["validation.jsonl"]
    (folder / "more.jsonl").write_bytes(lines([sft(9)]))
    (folder / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"more\.jsonl is no training file"):
        run(folder, tmp_path / "out")


def test_long_rows_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in (readers, json_rows):
        monkeypatch.setattr(module, "CHUNK_BYTES", 10_000)
    rows = [{"text": f"{n}" + "long " * 1000} for n in range(40)]
    table = pa.Table.from_pylist(rows)
    pa.parquet.write_table(table, tmp_path / "rows.parquet", use_dictionary=False)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for name in ("rows.parquet", "rows.json"):
        batches = list(readers.read(tmp_path / name, None))
        assert len(batches) > 5
        assert sum(batch.table.num_rows for batch in batches) == 40
        assert [batch.first for batch in batches][:2] == [1, 1 + batches[0].table.num_rows]
        run(tmp_path / name, tmp_path / f"out-{name}")
        assert read(tmp_path / f"out-{name}" / "train.jsonl") == rows


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("written", "value"),
    [
        (b'"a\nb"', "a\nb"), (b'"say ""a"""', 'say "a"'), (b'say "a', 'say "a'), (b'""', ""),
        (b'"' + b"a\n" * 3000 + b'"', "a\n" * 3000), (b'5"', '5"'), (b'"a""', None),
    ],
)  # fmt: skip
def test_quotes_at_the_end_of_a_file(tmp_path: Path, written: bytes, value: str | None, end: bytes):
    content = b"completion,prompt\na,q\nb," + written + end
    if value in ("", None):
        with pytest.raises(DataError, match="empty" if value == "" else "never closed"):
            converted(tmp_path, content, "rows.csv")
        return
    found = converted(tmp_path, content, "rows.csv")
    assert found[1]["messages"][0]["content"] == value
