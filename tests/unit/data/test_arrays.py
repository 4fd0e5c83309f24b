"""entrypoint.data.arrays: conversations as columns."""

import json

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.data.arrays import MESSAGES, Seen, combined, escaped, join, json_messages

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
MESSAGE = st.builds(lambda role, content: {"role": role, "content": content}, TEXTS, TEXTS)
COLUMN = st.lists(st.lists(MESSAGE, max_size=3), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1))
def test_text_is_escaped_as_json_does(texts: list[str]):
    found = escaped(pa.array(texts, pa.string())).to_pylist()
    assert [f'"{text}"' for text in found] == [
        json.dumps(text, ensure_ascii=False) for text in texts
    ]


@settings(deadline=None)
@given(COLUMN)
def test_conversations_are_written_as_json_does(column: list):
    found, _ = json_messages(pa.array(column, MESSAGES))
    assert found.to_pylist() == [json.dumps(row, ensure_ascii=False) for row in column]


@settings(deadline=None)
@given(COLUMN, COLUMN, st.integers(0, 2))
def test_conversations_are_joined_row_by_row(first: list, second: list, skipped: int):
    count = min(len(first), len(second))
    parts = [pa.array(part[:count], MESSAGES)[skipped:] for part in (first, second)]
    expected = [a + b for a, b in zip(first, second, strict=False)][skipped:]
    found = join(parts).to_pylist()
    shown = [[{"role": m["role"], "content": m["content"]} for m in row] for row in found]
    assert shown == expected


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=8))
def test_first_places_are_remembered(calls: list[list[int]]):
    seen, known, row = Seen(), {}, 0
    for values in calls:
        rows = np.arange(row + 1, row + 1 + len(values))
        found = seen.add(np.array(values, np.uint64), rows)
        for value, number, first in zip(values, rows, found, strict=True):
            assert first == known.get(value, 0)
            known.setdefault(value, number)
        row += len(values)


def test_a_hash_tells_orders_and_borders_apart():
    values = np.array([1, 2, 2, 1, 1, 2], np.uint64)
    bounds = [(0, 2), (2, 4), (4, 6), (0, 1), (0, 0), (0, 4)]
    starts, stops = (np.array(side) for side in zip(*bounds, strict=True))
    found = combined(values, starts, stops).tolist()
    assert found[0] == found[2]
    assert len(set(found)) == len(found) - 1
