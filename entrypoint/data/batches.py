"""Some rows of a source as a table, and where they stand there."""

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias, TypeVar

import pyarrow as pa

from entrypoint.data.columns import MIXED, ColumnError, plain, to_table
from entrypoint.errors import DataError

CHUNK_BYTES = 4 << 20
ROWS = 8192
"""Rows at once of what is not read by bytes."""
Wanted: TypeAlias = "pa.Schema | None"
T = TypeVar("T")
TAIL_BYTES = 4096
WORKERS = 2
"""Threads that work on columns; Arrow lets the others run meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Some rows of a file."""

    table: pa.Table
    file: str
    first: int
    """Number of the first row in the file; of its line, in JSON Lines."""
    unit: str = "row"
    lines: Any = field(default=None)
    """Numbers of the rows' lines, where empty lines are between them."""

    def number(self, row: int) -> int:
        return int(self.lines[row]) if self.lines is not None else self.first + row

    def where(self, row: int) -> str:
        return f"{self.file}, {self.unit} {self.number(row)}"


def objects(rows: list[dict[str, Any]], name: str, first: int, wanted: Wanted) -> Batch:
    try:
        return Batch(table=to_table(rows, wanted), file=name, first=first)
    except ColumnError as error:
        where = f"{name}, row {first + error.row}"
        raise DataError(str(error), where=where, hint=MIXED) from error


def columnar(table: pa.Table, name: str, first: int, wanted: Wanted) -> Batch:
    """Rows that are columns already, with nested ones made plain.

    Raises:
        DataError: a value is of no use in its column.
    """
    table = table.combine_chunks()
    found = plain(table, wanted)
    return (
        objects(table.to_pylist(), name, first, wanted)
        if found is None
        or (wanted is None and any(pa.types.is_nested(f.type) for f in found.schema))
        else Batch(table=found, file=name, first=first)
    )


def ahead(batches: Iterator[Batch], work: Callable[[Batch], T]) -> Iterator[T]:
    """`work` on each, in their order; the next ones are read and worked on in threads meanwhile."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(WORKERS) as workers:
        pending: deque[Future[T]] = deque()
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            pending.append(workers.submit(work, batch))
            if len(pending) > WORKERS:
                yield pending.popleft().result()
        for last in pending:
            yield last.result()


class Chained(io.RawIOBase):
    """Bytes that were read already, then the rest of their stream."""

    def __init__(self, start: bytes, stream: IO[bytes]) -> None:
        self._start, self._stream = start, stream
        self.tail = b""
        """The last bytes of what was read."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._start[: len(buffer)] or self._stream.read(len(buffer))
        self._start = self._start[len(found) :]
        self.tail = (self.tail + found[-TAIL_BYTES:])[-TAIL_BYTES:]
        buffer[: len(found)] = found
        return len(found)
