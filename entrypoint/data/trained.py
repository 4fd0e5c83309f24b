"""A look at the rows of a run before it starts: does each have something to learn from?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from entrypoint.data.arrays import FIELDS, MESSAGES, bounds, numpy
from entrypoint.data.chat import Chat, Encoded
from entrypoint.data.readers import read
from entrypoint.data.sequences import grouped, name_the_row, render
from entrypoint.data.shapes import Task
from entrypoint.errors import DataError

CANONICAL: Mapping[Task, pa.Schema] = {
    "sft": pa.schema([("messages", MESSAGES), ("tools", pa.string())]),
    "preference": pa.schema([("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES)]),
    "text": pa.schema([("text", pa.string())]),
}
ROWS_AT_ONCE = 512
HEAD_ROWS = 64
MARGIN_BYTES = 256


def check_trained(path: Path, chat: Chat, max_seq_len: int, task: Task = "sft") -> int:
    """Make sure that the template suits the rows, and that each has something to learn from.

    Only rows that may be too long are tokenised: a text has at most as many tokens as bytes.

    Args:
        path: canonical rows of the task.

    Returns:
        How many rows are cut.

    Raises:
        DataError: a row's answers are all cut away.
        ModelError: the template rewrites earlier turns.
    """
    margin: int | None = None
    cut = 0
    for batch in read(path, CANONICAL[task]):
        sizes = _sizes(batch.table)
        if margin is None:
            head = batch.table.slice(0, HEAD_ROWS).to_pylist()
            found = _check(chat, head, range(len(head)), batch.where, max_seq_len)
            margin = max(_overhead(row, sizes) for row, sizes in zip(found, sizes, strict=False))
            margin += MARGIN_BYTES
        long = np.flatnonzero(sizes + margin > max_seq_len)
        for start in range(0, len(long), ROWS_AT_ONCE):
            some = long[start : start + ROWS_AT_ONCE].tolist()
            rows = batch.table.take(pa.array(some)).to_pylist()
            for sequences in _check(chat, rows, some, batch.where, max_seq_len):
                cut += any(len(encoded.ids) > max_seq_len for encoded in sequences)
    return cut


def _check(
    chat: Chat, rows: Any, numbers: Sequence[int], where: Any, limit: int
) -> list[list[Encoded]]:
    try:
        found = render(chat, rows)()
    except ValueError:
        name_the_row(chat, rows, lambda row: where(numbers[row]))
        raise
    by_row = grouped(found, len(found) // len(rows))
    for number, sequences in zip(numbers, by_row, strict=True):
        if not all(encoded.trained_within(limit) for encoded in sequences):
            raise DataError(
                f"the answer lies behind the {limit} tokens after which rows are cut, so there is "
                "nothing to learn from the row",
                where=where(number),
                hint="raise --max-seq-len, or leave such rows out: train prepare --max-seq-len "
                f"{limit} --policy untrained=drop",
            )
    return by_row


def _sizes(table: pa.Table) -> Any:
    """Bytes of the texts of each row; with the longer answer, of a pair."""
    found = {name: _bytes(table[name].combine_chunks()) for name in table.column_names}
    if "chosen" in found:
        return found["prompt"] + np.maximum(found["chosen"], found["rejected"])
    return sum(found.values())


def _bytes(column: Any) -> Any:
    if not pa.types.is_list(column.type):
        return numpy(pc.fill_null(pc.binary_length(column), 0)).astype(np.int64)
    starts, stops = bounds(column)
    each = np.zeros(len(column.values), np.int64)
    for name in FIELDS:
        each += numpy(pc.fill_null(pc.binary_length(column.values.field(name)), 0))
    total = np.concatenate(([0], np.cumsum(each)))
    return total[stops] - total[starts]


def _overhead(sequences: list[Encoded], size: int) -> int:
    """Bytes that the template writes around the texts."""
    return max(len(encoded.text.encode()) for encoded in sequences) - size
