"""How many tokens rows have, and how many of them are learnt from."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from entrypoint.data.chat import Chat, Encoded
from entrypoint.data.packing import packs
from entrypoint.data.sequences import grouped, name_the_row, render

ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Token counts of the rows that were written; a preference row counts twice, once for each
    answer. A text is counted with its end-of-text token."""

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
                encode = render(chat, rows)
            except ValueError:
                name_the_row(chat, rows, lambda row, start=first: where(start + row))
                raise
            # the tokenizer, which needs no interpreter, works while the next rows are rendered
            following = pool.submit(encode)
            if pending is not None:
                yield grouped(pending.result(), each)
            pending = following
            first += len(rows)
        if pending is not None:
            yield grouped(pending.result(), each)
