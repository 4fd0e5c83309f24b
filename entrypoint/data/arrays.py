"""Columns of conversations as Arrow arrays: built, joined, cut, written as JSON. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

FIELDS = (
    "role", "content", "reasoning_content", "name", "tool_calls", "tool_call_id", "weight",
)  # fmt: skip
"""What a message may hold; all text, `tool_calls` as JSON text, `weight` "0" or "1"."""
MESSAGE = pa.struct([(name, pa.string()) for name in FIELDS])
MESSAGES = pa.list_(MESSAGE)
ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))
SPLITMIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def messages(lengths: Any, role: Any, content: Any, **others: Any) -> pa.ListArray:
    """A column of conversations from its flat messages.

    Args:
        lengths: messages of each row.
        role: a text for all, or one for each message.
        content: one for each message; so are `others`.
    """
    count = len(content)
    roles = pa.repeat(pa.scalar(role), count) if isinstance(role, str) else role
    values = {"role": roles, "content": content} | others
    columns = [values.get(name, pa.nulls(count, pa.string())) for name in FIELDS]
    flat = pa.StructArray.from_arrays([text(column) for column in columns], fields=list(MESSAGE))
    return pa.ListArray.from_arrays(pa.array(_offsets(lengths)), flat, type=MESSAGES)


def one_each(role: str, content: pa.Array) -> pa.ListArray:
    """Conversations of one message; of none where the content is null."""
    valid = numpy(content.is_valid())
    return messages(valid.astype(np.int64), role, content.drop_null())


def text(column: Any) -> pa.StringArray:
    """A text column as one array of plain strings."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column if column.type == pa.string() else column.cast(pa.string())


def numpy(array: Any) -> Any:
    """Any array or chunked array without nulls as numpy."""
    return array.to_numpy(zero_copy_only=False)


def _offsets(lengths: Any) -> Any:
    return np.concatenate(([0], np.cumsum(np.asarray(lengths, np.int64)))).astype(np.int32)


def bounds(lists: pa.ListArray) -> tuple[Any, Any]:
    """First message and end of each row, as positions in `lists.values`."""
    offsets = numpy(lists.offsets).astype(np.int64)
    valid = numpy(lists.is_valid())
    return offsets[:-1], np.where(valid, offsets[1:], offsets[:-1])


def ranges(starts: Any, lengths: Any) -> Any:
    """start, start + 1, … of each row, one row after the other."""
    first = np.cumsum(lengths) - lengths
    return np.repeat(starts - first, lengths) + np.arange(int(lengths.sum()))


def cut(lists: pa.ListArray, starts: Any, stops: Any) -> pa.ListArray:
    """Messages from `starts` to `stops` of each row, as positions in `lists.values`."""
    lengths = stops - starts
    flat = lists.values.take(pa.array(ranges(starts, lengths)))
    return pa.ListArray.from_arrays(pa.array(_offsets(lengths)), flat, type=MESSAGES)


def join(parts: Sequence[pa.ListArray]) -> pa.ListArray:
    """Conversations, row by row one behind the other."""
    limits = [bounds(part) for part in parts]
    lengths = [stops - starts for starts, stops in limits]
    total = np.sum(lengths, axis=0)
    position = np.cumsum(total) - total
    order = np.empty(int(total.sum()), np.int64)
    base = 0
    for part, (starts, _), length in zip(parts, limits, lengths, strict=True):
        order[ranges(position, length)] = base + ranges(starts, length)
        position = position + length
        base += len(part.values)
    flat = pa.concat_arrays([part.values for part in parts]).take(pa.array(order))
    return pa.ListArray.from_arrays(pa.array(_offsets(total)), flat, type=MESSAGES)


def content_bytes(column: pa.StringArray) -> bytes:
    """All texts of a column, one behind the other."""
    _, offsets, data = column.buffers()
    if data is None:
        return b""
    limits = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return bytes(memoryview(data)[int(limits[0]) : int(limits[-1])])


def escaped(column: pa.StringArray) -> pa.StringArray:
    """Texts as they stand between the quotes of a JSON string; like json.dumps, but in UTF-8."""
    # to look for a byte costs next to nothing, to replace it all over costs most of the time
    data = content_bytes(column)
    for character, escape in ESCAPES:
        if character.encode() in data:
            column = pc.replace_substring(column, character, escape)
    for code in set(range(32)) - {9, 10, 13}:
        if bytes([code]) in data:
            escape = {8: "\\b", 12: "\\f"}.get(code, f"\\u{code:04x}")
            column = pc.replace_substring(column, chr(code), escape)
    return column


def glue(*pieces: Any) -> Any:
    """Texts and columns of text, one behind the other."""
    return pc.binary_join_element_wise(*pieces, "")


def json_messages(lists: pa.ListArray) -> tuple[pa.StringArray, Any]:
    """Conversations as JSON, and a hash of each message; keys without a value are left out."""
    flat = lists.values
    pieces: list[Any] = ["{"]
    for name in FIELDS:
        column = flat.field(name)
        if column.null_count == len(column) and name not in ("role", "content"):
            continue
        key = f'{"" if name == "role" else ", "}"{name}": "'
        if column.null_count:
            pieces.append(pc.coalesce(glue(key, escaped(column), '"'), ""))
        else:
            pieces += [key, escaped(column), '"']
    each = glue(*pieces, "}")
    joined = pa.ListArray.from_arrays(lists.offsets, each)
    return glue("[", pc.binary_join(joined, ", "), "]"), hashes(each)


def hashes(column: pa.StringArray) -> Any:
    """64 bits for each text (XXH3), the same on every machine."""
    texts = column.cast(pa.binary()).to_pylist()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts))


def combined(values: Any, starts: Any, stops: Any) -> Any:
    """One hash for each row from those of its messages, in their order."""
    lengths = stops - starts
    picked = values[ranges(starts, lengths)]
    first = np.cumsum(lengths) - lengths
    position = (np.arange(len(picked)) - np.repeat(first, lengths)).astype(np.uint64)
    with np.errstate(over="ignore"):
        total = np.concatenate(
            (np.zeros(1, np.uint64), np.cumsum(mixed(picked + position, 0), dtype=np.uint64))
        )
        return mixed(total[first + lengths] - total[first] + lengths.astype(np.uint64), 1)


def mixed(values: Any, seed: int) -> Any:
    """Other 64 bits for each hash (splitmix64), a permutation for each seed."""
    first, second, third = (np.uint64(constant) for constant in SPLITMIX)
    with np.errstate(over="ignore"):
        mixed = values + first * np.uint64(seed + 1)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * second
        mixed = (mixed ^ (mixed >> np.uint64(27))) * third
    return mixed ^ (mixed >> np.uint64(31))


class Seen:
    """Hashes that have been met, each with the row that it was first met in: 16 bytes a hash.

    Sorted runs, the smaller ones merged when they add up, so that a lookup costs few searches.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Any, Any]] = []

    def find(self, values: Any) -> Any:
        """The row that each hash was first met in, or 0."""
        found = np.zeros(len(values), np.int64)
        for run, rows in self._runs:
            position = np.minimum(np.searchsorted(run, values), len(run) - 1)
            hit = run[position] == values
            found[hit] = rows[position[hit]]
        return found

    def add(self, values: Any, rows: Any) -> Any:
        """Note hashes and return what `find` says of each; earlier ones of this call count.

        Args:
            rows: the row number of each, from 1.
        """
        found = self.find(values)
        unique, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        repeats = (found == 0) & (first[inverse] != np.arange(len(values)))
        found[repeats] = rows[first[inverse[repeats]]]
        new = found[first] == 0
        if new.any():
            self._runs.append((unique[new], rows[first[new]]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            (a, rows_a), (b, rows_b) = self._runs.pop(), self._runs.pop()
            both = np.concatenate((b, a))
            order = np.argsort(both, kind="stable")
            self._runs.append((both[order], np.concatenate((rows_b, rows_a))[order]))
        return found
