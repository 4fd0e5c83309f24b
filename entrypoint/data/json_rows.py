"""JSON Lines, and files that are one JSON array, as tables; bad lines are named."""

import io
import json
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from entrypoint.data.batches import CHUNK_BYTES, ROWS, Batch, Chained, Wanted, objects
from entrypoint.data.columns import MIXED, ColumnError, is_number, plain, to_table
from entrypoint.data.encodings import not_utf8, refuse_utf16
from entrypoint.errors import DataError

HEAD_ROWS = 200
"""Rows that decide on the columns of a file."""


def read_json(stream: IO[bytes], name: str, wanted: Wanted, head: bool) -> Iterator[Batch]:
    """The rows of JSON Lines, or of one JSON array, some megabytes at a time.

    Args:
        name: of the file, in messages.
        head: the first rows are enough.

    Raises:
        DataError: names the line, or the row of an array, that is no object.
    """
    start = stream.read(64 if head else CHUNK_BYTES)
    refuse_utf16(start, name)
    start = start.removeprefix(b"\xef\xbb\xbf")
    while not start.strip() and (more := stream.read(CHUNK_BYTES)):
        start += more
    if start.lstrip().startswith(b"["):
        yield from _json_array(start, stream, name, wanted, head)
        return
    line = 1
    while start:
        block = stream.read(CHUNK_BYTES)
        chunk, start = start + block, b""
        if block:
            end = chunk.rfind(b"\n") + 1
            if head and chunk.count(b"\n") >= HEAD_ROWS:
                yield _by_line(chunk[:end].split(b"\n")[:HEAD_ROWS], name, 1, None)
                return
            chunk, start = chunk[:end], chunk[end:]
        if chunk.strip():
            yield _chunk(chunk, name, line, wanted)
        line += chunk.count(b"\n")


def _chunk(chunk: bytes, name: str, line: int, wanted: Wanted) -> Batch:
    """Whole lines, read column by column when they are plain."""
    if wanted is not None and not any(map(is_number, wanted.types)):
        try:
            table = pa_json.read_json(
                pa.BufferReader(chunk),
                read_options=pa_json.ReadOptions(block_size=CHUNK_BYTES // 2),
                parse_options=pa_json.ParseOptions(explicit_schema=wanted),
            )
            table.validate(full=True)
            found = plain(table, wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            found = None
        # a line with two objects, or an object on two lines, is not JSON Lines
        if found is not None and found.num_rows == chunk.count(b"\n") + (chunk[-1:] != b"\n"):
            return Batch(table=found, file=name, first=line, unit="line")
    return _by_line(chunk.split(b"\n"), name, line, wanted)


def _by_line(lines: list[bytes], name: str, first: int, wanted: Wanted) -> Batch:
    rows, numbers = [], []
    for number, line in enumerate(lines, start=first):
        if line.strip():
            rows.append(_row(line, f"{name}, line {number}"))
            numbers.append(number)
    try:
        table = to_table(rows, wanted)
    except ColumnError as error:
        raise DataError(
            str(error), where=f"{name}, line {numbers[error.row]}", hint=MIXED
        ) from error
    return Batch(table=table, file=name, first=first, unit="line", lines=np.array(numbers))


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise not_utf8(error, where) from error
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise DataError(
            f"not a JSON object: {what} at column {error.colno}",
            where=where,
            hint="every line must be one whole JSON object (JSON Lines); `jq -c .` writes it so",
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f"a row must be a JSON object, not {type(row).__name__}",
            where=where,
            hint='one object with the row\'s columns: {"prompt": …, "completion": …}',
        )
    return row


class _Array:
    """The values of a file that is one JSON array, one by one; more is read when one is not whole.

    Raises:
        DataError: it is none, or something else follows it.
    """

    SPACE = " \t\r\n"

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name
        self._decoder = json.JSONDecoder()
        self._text, self._at, self.row = "", 0, 0
        self.read = 0
        """Characters so far."""

    def __iter__(self) -> Iterator[Any]:
        self._next()
        self._at += 1  # the bracket, which was seen
        if self._next() == "]":
            return self._end()
        while True:
            self.row += 1
            yield self._value()
            mark = self._next()
            self._at += 1
            if mark == "]":
                self._at -= 1
                return self._end()
            if mark != ",":
                raise self._error(f"{mark!r} where a comma or ] belongs" if mark else "it ends")
            self._next()

    def _next(self) -> str:
        """The next character that is no space, which is not consumed; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in self.SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - 16
                if cut and self._more():
                    continue
                raise self._error(error.msg.removesuffix(" at")) from error
            self._at = end
            return value

    def _more(self) -> bool:
        text = self._stream.read(CHUNK_BYTES)
        self._text, self._at = self._text[self._at :] + text, 0
        self.read += len(text)
        return bool(text)

    def _end(self) -> None:
        self._at += 1
        if found := self._next():
            raise self._error(f"{found!r} follows the end of the array")

    def _error(self, what: str) -> DataError:
        ended = not self._next()
        return DataError(
            f"not a JSON array of objects: {what}" + ("; the file is cut short" if ended else ""),
            where=f"{self._name}, row {self.row}",
            hint="the file must be one array, [{…}, {…}], or have one object on each line",
        )


def _json_array(
    start: bytes, stream: IO[bytes], name: str, wanted: Wanted, head: bool
) -> Iterator[Batch]:
    """A file that is one array, some megabytes of objects at a time."""
    source = io.TextIOWrapper(
        io.BufferedReader(Chained(start, stream)), encoding="utf-8", errors="strict"
    )
    values, rows, first, read = _Array(source, name), [], 1, 0
    try:
        for value in values:
            if not isinstance(value, dict):
                raise DataError(
                    f"a row must be a JSON object, not {type(value).__name__}",
                    where=f"{name}, row {values.row}",
                    hint="the file must be one array of objects: [{…}, {…}]",
                )
            rows.append(value)
            full = len(rows) >= (HEAD_ROWS if head else ROWS)
            if full or values.read - read > CHUNK_BYTES:
                yield objects(rows, name, first, wanted)
                first, rows, read = values.row + 1, [], values.read
    except UnicodeDecodeError as error:
        raise not_utf8(error, f"{name}, after row {values.row}") from error
    if rows:
        yield objects(rows, name, first, wanted)
