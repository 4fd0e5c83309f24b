"""entrypoint.data.prepare: from every source and shape to canonical files."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrypoint.data.checks import CHECKS
from entrypoint.errors import DataError, SettingsError
from tests.unit.data.sets import (
    COUNT,
    FLAT_ONLY,
    NESTED,
    SHAPES,
    WRITERS,
    lines,
    read,
    run,
    said,
    sft,
    turn,
)

PAIRS = [
    (writer, shape) for writer in WRITERS for shape in SHAPES
    if not (writer in FLAT_ONLY and shape in NESTED)
]  # fmt: skip


@pytest.mark.parametrize(("writer", "shape"), PAIRS)
def test_every_source_and_shape_gives_the_same_rows(tmp_path: Path, writer: str, shape: str):
    make, expect = SHAPES[shape]
    path = tmp_path / writer
    WRITERS[writer](path, [make(n) | {"id": n} for n in range(COUNT)])
    prepared = run(path, tmp_path / "out")
    assert read(tmp_path / "out" / "train.jsonl") == [expect(n) for n in range(COUNT)]
    assert (prepared.rows, prepared.train.rows, prepared.evaluation) == (COUNT, COUNT, None)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_prepared_is_prepared_again_to_the_same_bytes(tmp_path: Path, shape: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([SHAPES[shape][0](n) for n in range(COUNT)]))
    run(path, tmp_path / "once")
    run(tmp_path / "once" / "train.jsonl", tmp_path / "twice")
    once, twice = (tmp_path / name / "train.jsonl" for name in ("once", "twice"))
    assert once.read_bytes() == twice.read_bytes()


def test_tool_calls_and_tools_keep_their_values(tmp_path: Path):
    calls = [{"function": {"name": "f", "arguments": {"x": 1, "y": None}}}]
    tools = [{"function": {"name": "f", "parameters": {"type": "object"}}}]
    conversation = [
        turn("user", "q"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
        turn("assistant", "a"),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([sft(1), {"messages": conversation, "tools": tools}, sft(2)]))
    for name, source in (("once", path), ("twice", tmp_path / "once" / "train.jsonl")):
        run(source, tmp_path / name)
        plain, called, _ = read(tmp_path / name / "train.jsonl")
        assert plain == sft(1)
        assert json.loads(called["tools"]) == tools
        assert json.loads(called["messages"][1]["tool_calls"])[0]["function"]["name"] == "f"
        assert called["messages"][2]["tool_call_id"] == "1"


def test_content_in_parts_is_joined(tmp_path: Path):
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        lines([{"messages": [{"role": "user", "content": parts}, turn("assistant", "a")]}])
    )
    run(path, tmp_path / "out")
    assert read(tmp_path / "out" / "train.jsonl")[0]["messages"][0]["content"] == "one two"


def test_columns_are_named_by_the_user(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([{"ask": "q", "reply": "a", "output": "no"}]))
    prepared = run(path, tmp_path / "out", columns={"instruction": "ask", "output": "reply"})
    assert prepared.shape.format == "alpaca"
    assert read(tmp_path / "out" / "train.jsonl")[0]["messages"][1]["content"] == "a"


def test_a_folder_a_pattern_and_a_folder_with_parts(tmp_path: Path):
    for part in ("b", "a"):
        (tmp_path / "in" / part).mkdir(parents=True)
        (tmp_path / "in" / part / "rows.jsonl").write_bytes(lines([sft(ord(part))]))
    assert run(tmp_path / "in", tmp_path / "o1").rows == 2
    assert read(tmp_path / "o1" / "train.jsonl") == [sft(ord("a")), sft(ord("b"))]
    assert run(f"{tmp_path}/in/*/*.jsonl", tmp_path / "o2").rows == 2
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, number in (("train-00000-of-00001", 1), ("validation", 2)):
        (parts / f"{name}.jsonl").write_bytes(lines([sft(number)]))
    run(parts, tmp_path / "o3")
    assert read(tmp_path / "o3" / "eval.jsonl") == [sft(2)]
    with pytest.raises(SettingsError, match="evaluation rows of its own"):
        run(parts, tmp_path / "o4", eval_fraction=0.5)


def test_dataset_json_says_what_it_is_made_of(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([{"prompt": f"q{n}", "completion": "a"} for n in range(COUNT)]))
    run(path, tmp_path / "out", eval_fraction=0.3)
    found = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert found.keys() == {
        "version", "source", "task", "format", "columns", "columns_not_read",
        "rows_read", "train", "evaluation",
        "split", "shuffled", "max_rows", "checks",
    }  # fmt: skip
    assert found["source"]["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["checks"].keys() == CHECKS.keys()
    for part in ("train", "evaluation"):
        content = (tmp_path / "out" / found[part]["file"]).read_bytes()
        assert found[part]["sha256"] == hashlib.sha256(content).hexdigest()
        assert found[part]["rows"] == content.count(b"\n")
        assert found[part]["longest"] == max(map(len, content.decode().splitlines()))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "rows.jsonl"]


def test_an_existing_folder_is_never_written_to(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([sft(1)]))
    (tmp_path / "out").mkdir()
    with pytest.raises(SettingsError, match="exists already"):
        run(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_left_when_a_row_is_bad(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([sft(1)]) + b"{\n")
    with pytest.raises(DataError):
        run(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_added_rows_move_none_to_the_other_side(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    sides = []
    for count in (100, 150):
        path.write_bytes(lines([sft(n) for n in reversed(range(count))]))
        run(path, tmp_path / str(count), eval_fraction=0.3)
        sides.append([read(tmp_path / str(count) / name) for name in ("train.jsonl", "eval.jsonl")])
    (train, held_out), (more_train, more_held_out) = sides
    assert 15 <= len(held_out) <= 45
    assert all(row in more_train for row in train)
    assert all(row in more_held_out for row in held_out)


def test_one_question_is_on_one_side(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"q{n % 20}", "completion": f"a{n}"} for n in range(200)]
    path.write_bytes(lines(rows))
    run(path, tmp_path / "out", eval_fraction=0.5)
    train, held_out = (
        {row["messages"][0]["content"] for row in read(tmp_path / "out" / name)}
        for name in ("train.jsonl", "eval.jsonl")
    )
    assert train
    assert held_out
    assert not train & held_out


def test_rows_are_shuffled_by_their_content_and_bounded(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([sft(n) for n in range(100)]))
    run(path, tmp_path / "first", max_rows=10)
    assert read(tmp_path / "first" / "train.jsonl") == [sft(n) for n in range(10)]
    shuffled = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(path, tmp_path / name, shuffle=True, seed=seed)
        shuffled.append(read(tmp_path / name / "train.jsonl"))
    a, b, c = shuffled
    assert a == b
    assert a != c
    assert a != [sft(n) for n in range(100)]
    key = lambda row: json.dumps(row)  # noqa: E731
    assert sorted(a, key=key) == sorted((sft(n) for n in range(100)), key=key)
    run(path, tmp_path / "d", shuffle=True, seed=1, max_rows=10)
    assert read(tmp_path / "d" / "train.jsonl") == a[:10]
    found = json.loads((tmp_path / "d" / "dataset.json").read_text())
    content = (tmp_path / "d" / "train.jsonl").read_bytes()
    assert found["train"]["sha256"] == hashlib.sha256(content).hexdigest()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
CONVERSATIONS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXTS}), max_size=4)
NAMES = st.sampled_from(["human", "gpt", "system", "tool", "alice"])
SHAREGPT = st.lists(st.fixed_dictionaries({"from": NAMES, "value": TEXTS}), max_size=4)
GOOD = {
    "messages": sft(1)["messages"],
    "conversations": said(("human", "q"), ("gpt", "a")),
    "chosen": [turn("user", "q"), turn("assistant", "a")],
    "rejected": [turn("user", "q"), turn("assistant", "b")],
}
ROWS = st.one_of(
    st.lists(st.fixed_dictionaries({"messages": CONVERSATIONS}), min_size=1, max_size=8),
    st.lists(
        st.fixed_dictionaries({"instruction": TEXTS, "input": st.none() | TEXTS, "output": TEXTS}),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.fixed_dictionaries({"text": TEXTS}), min_size=1, max_size=8),
    st.lists(
        st.fixed_dictionaries({"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS}),
        min_size=1,
        max_size=8,
    ),
    st.lists(
        st.fixed_dictionaries({"chosen": CONVERSATIONS, "rejected": CONVERSATIONS}),
        min_size=1,
        max_size=8,
    ),
    st.lists(
        st.fixed_dictionaries({"system": TEXTS, "conversations": SHAREGPT}), min_size=1, max_size=8
    ),
)
DROP = ("empty=drop", "roles=drop", "order=drop", "same=drop")


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
def test_no_row_is_lost_or_invented_and_twice_is_once(tmp_path_factory, rows: list):
    folder = tmp_path_factory.mktemp("property")
    path = folder / "rows.jsonl"
    # one row that is good, so that something is left
    anchor = {
        name: GOOD[name] if isinstance(value, list) else name for name, value in rows[0].items()
    }
    rows.insert(0, anchor)
    path.write_bytes(lines(rows))
    once = run(path, folder / "once", *DROP)
    left_out = sum(
        found.count for name, found in once.findings.by_check.items() if found.policy == "drop"
    )
    assert once.rows == len(rows) == once.train.rows + left_out
    twice = run(folder / "once" / "train.jsonl", folder / "twice")
    assert twice.train.sha256 == once.train.sha256
    for line in (folder / "once" / "train.jsonl").read_text("utf-8").split("\n")[:-1]:
        assert json.dumps(json.loads(line), ensure_ascii=False) == line


def test_arrow_types_of_other_writers_are_read(tmp_path: Path):
    struct = pa.struct([("role", pa.large_string()), ("content", pa.large_string())])
    rows = [sft(n) for n in range(3)]
    for index, type_ in enumerate((pa.large_list(struct), pa.list_(struct))):
        table = pa.table({"messages": pa.array([row["messages"] for row in rows], type_)})
        pa.parquet.write_table(table, tmp_path / f"{index}.parquet")
        run(tmp_path / f"{index}.parquet", tmp_path / f"out{index}")
        assert read(tmp_path / f"out{index}" / "train.jsonl") == rows
    columns = {
        "prompt": pa.array(["q", "q"]).dictionary_encode(),
        "completion": pa.array(["a", "b"]),
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "d.parquet")
    assert run(tmp_path / "d.parquet", tmp_path / "d").train.rows == 2
