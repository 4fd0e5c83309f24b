"""How many tokens rows have, and how many of them are learnt from."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from entrypoint.data.arrays import FIELDS, MESSAGES, bounds, numpy
from entrypoint.data.chat import Chat, Conversation, Encoded, RewritesTurns, Span
from entrypoint.data.packing import packs
from entrypoint.data.readers import read
from entrypoint.data.rows import to_messages, to_tools
from entrypoint.errors import DataError, ModelError

CANONICAL = pa.schema([("messages", MESSAGES), ("tools", pa.string())])
ROWS_AT_ONCE = 512
HEAD_ROWS = 64
MARGIN_BYTES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Token counts of the rows that were written; a preference row counts twice, once for each
    answer."""

    max_seq_len: int
    rows: int
    tokens: int
    trained: int
    """Tokens that carry loss, of those within max_seq_len."""
    longest: int
    median: int
    histogram: tuple[tuple[int, int, int], ...]
    """From, to (tokens) and how many rows."""
    packed: int
    """Sequences of max_seq_len tokens that whole rows fit into, best fit."""

    @property
    def trained_share(self) -> float:
        return self.trained / self.tokens if self.tokens else 0.0

    @property
    def packing_efficiency(self) -> float:
        """Share of the packed sequences that is not padding."""
        return self.tokens / (self.packed * self.max_seq_len) if self.packed else 0.0

    @property
    def padding_efficiency(self) -> float:
        """The same when each row is a sequence of its own, as long as the longest."""
        longest = min(self.longest, self.max_seq_len)
        return self.tokens / (self.rows * longest) if self.rows else 0.0


class TokenInspector:
    """Counts tokens while rows are prepared.

    Args:
        max_seq_len: tokens after which a row is cut.
        preview: how many training rows to keep for a look at their tokens.
    """

    def __init__(self, chat: Chat, max_seq_len: int, preview: int = 0) -> None:
        self.chat, self.max_seq_len, self._preview = chat, max_seq_len, preview
        self._counts = np.zeros(1, np.int64)
        self._trained = 0
        self._last: tuple[Any, Any, list[list[Encoded]]] = ((), (), [])
        self.shown: list[list[Encoded]] = []

    def met(self, table: pa.Table, where: Any) -> Mapping[str, Any]:
        rows: list[list[Encoded]] = []
        lengths, trained = [], []
        keep = len(self.shown) < self._preview
        for some in _encoded(self.chat, table, where):
            for encoded in some:
                lengths.append([len(found.ids) for found in encoded])
                trained.append([found.trained_within(self.max_seq_len) for found in encoded])
            rows += some if keep else []
        sizes, learnt = np.array(lengths), np.array(trained)
        self._last = (sizes, learnt, rows)
        if not len(sizes):
            return {}
        return {
            "untrained": (learnt == 0).any(axis=1),
            "long": (sizes > self.max_seq_len).any(axis=1),
        }

    def keep(self, part: str, chosen: Any) -> None:
        sizes, learnt, rows = self._last
        cut = np.minimum(sizes[chosen], self.max_seq_len).reshape(-1)
        counts = np.bincount(cut, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self._trained += int(learnt[chosen].sum())
        if part == "train" and rows:
            room = self._preview - len(self.shown)
            self.shown += [rows[row] for row in np.flatnonzero(chosen)[:room]]

    def statistics(self) -> Statistics:
        counts = self._counts
        lengths = np.arange(len(counts))
        rows = int(counts.sum())
        cumulated = np.cumsum(counts)
        return Statistics(
            max_seq_len=self.max_seq_len,
            rows=rows,
            tokens=int((counts * lengths).sum()),
            trained=self._trained,
            longest=int(lengths[counts > 0].max()) if rows else 0,
            median=int(np.searchsorted(cumulated, rows / 2)) if rows else 0,
            histogram=histogram(counts),
            packed=packs(counts, self.max_seq_len),
        )


def histogram(counts: Any) -> tuple[tuple[int, int, int], ...]:
    """Rows by length, in steps that grow with it: 1 to 16, 17 to 24, 25 to 32, 33 to 48, …"""
    found: list[tuple[int, int, int]] = []
    low, high = 0, 16
    while low < len(counts) - 1 or not found:
        found.append((low + 1, high, int(counts[low + 1 : high + 1].sum())))
        # by a half and by a third in turns, which doubles
        low, high = high, high * 3 // 2 if high.bit_count() == 1 else high * 4 // 3
    first = next((index for index, (_, _, rows) in enumerate(found) if rows), 0)
    return tuple(found[first:])


def _encoded(chat: Chat, table: pa.Table, where: Any) -> Iterator[list[list[Encoded]]]:
    """Some hundred rows at a time: one sequence for each, or one for each answer of a pair."""
    first = 0
    each = 2 if "chosen" in table.column_names else 1
    with ThreadPoolExecutor(1) as pool:
        pending: Future[list[Encoded]] | None = None
        for part in table.to_batches(max_chunksize=ROWS_AT_ONCE):
            rows = part.to_pylist()
            try:
                texts, spans = _render(chat, rows)
            except ValueError:
                _name_the_row(chat, rows, lambda row, start=first: where(start + row))
                raise
            # the tokenizer, which needs no interpreter, works while the next rows are rendered
            following = pool.submit(chat.encode_texts, texts, spans)
            if pending is not None:
                yield _grouped(pending.result(), each)
            pending = following
            first += len(rows)
        if pending is not None:
            yield _grouped(pending.result(), each)


def _grouped(sequences: list[Encoded], each: int) -> list[list[Encoded]]:
    return [sequences[start : start + each] for start in range(0, len(sequences), each)]


def _render(chat: Chat, rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Span]] | None]:
    """The sequences that rows are: the answers of a pair are two, one behind the other."""
    if "text" in rows[0]:
        return [row["text"] for row in rows], None
    if "messages" in rows[0]:
        return chat.render_all([conversation(row) for row in rows])
    return chat.render_all(
        [
            (to_messages({"messages": [*row["prompt"], *row[side]]}), None)
            for row in rows
            for side in ("chosen", "rejected")
        ]
    )


def _name_the_row(chat: Chat, rows: list[dict[str, Any]], where: Any) -> None:
    for index, row in enumerate(rows):
        try:
            _render(chat, [row])
        except RewritesTurns as error:
            raise rewrites(error, where(index)) from error
        except ValueError as error:
            raise DataError(
                str(error), where=where(index), hint="leave the row out, or train another model"
            ) from error


def rewrites(error: RewritesTurns, where: object) -> ModelError:
    """The error for a template that no loss mask can be made with."""
    return ModelError(
        str(error),
        where=where,
        hint="Qwen3's template drops the thinking of earlier turns, for example: put a template "
        "that does not into the model's chat_template.jinja, or train on the last turn alone: "
        "--set +tokenizer.train_on=last",
    )


def conversation(row: Mapping[str, Any]) -> Conversation:
    return to_messages(row), to_tools(row)


def check_trained(path: Path, chat: Chat, max_seq_len: int) -> None:
    """Make sure that the template suits the rows, and that each has something to learn from.

    Only rows that may be too long are tokenised: a text has at most as many tokens as bytes.

    Args:
        path: canonical conversations.

    Raises:
        DataError: a row's answers are all cut away.
        ModelError: the template rewrites earlier turns.
    """
    margin: int | None = None
    for batch in read(path, CANONICAL):
        if margin is None:
            head = batch.table.slice(0, HEAD_ROWS).to_pylist()
            _check(chat, head, range(len(head)), batch.where, max_seq_len)
            margin = max(_overhead(chat, row) for row in head) + MARGIN_BYTES
        long = np.flatnonzero(_sizes(batch.table) + margin > max_seq_len)
        for start in range(0, len(long), ROWS_AT_ONCE):
            some = long[start : start + ROWS_AT_ONCE].tolist()
            _check(
                chat, batch.table.take(pa.array(some)).to_pylist(), some, batch.where, max_seq_len
            )


def _check(chat: Chat, rows: Any, numbers: Sequence[int], where: Any, limit: int) -> None:
    try:
        found = chat.encode_texts(*_render(chat, rows))
    except ValueError:
        _name_the_row(chat, rows, lambda row: where(numbers[row]))
        raise
    for number, encoded in zip(numbers, found, strict=True):
        if not encoded.trained_within(limit):
            raise DataError(
                f"the answer lies behind the {limit} tokens after which rows are cut, so there is "
                "nothing to learn from the row",
                where=where(number),
                hint="raise --max-seq-len, or leave such rows out: train prepare --max-seq-len "
                f"{limit} --policy untrained=drop",
            )


def _sizes(table: pa.Table) -> Any:
    """Bytes of the texts of each row."""
    conversations = table["messages"].combine_chunks()
    starts, stops = bounds(conversations)
    each = np.zeros(len(conversations.values), np.int64)
    for name in FIELDS:
        each += numpy(pc.fill_null(pc.binary_length(conversations.values.field(name)), 0))
    total = np.concatenate(([0], np.cumsum(each)))
    tools = numpy(pc.fill_null(pc.binary_length(table["tools"]), 0))
    return total[stops] - total[starts] + tools


def _overhead(chat: Chat, row: Mapping[str, Any]) -> int:
    """Bytes that the template writes around the texts."""
    said = [value for message in row["messages"] for value in message.values() if value]
    written = len(chat.render(*conversation(row)).encode())
    return written - sum(len(text.encode()) for text in [*said, row["tools"] or ""])
