"""JSON Lines, and files that are one JSON array, as tables; bad lines are named."""

import io
import json
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from entrypoint.data.batches import CHUNK_BYTES, ROWS, Batch, Chained, Wanted, objects, refuse_utf16
from entrypoint.data.columns import MIXED, ColumnError, plain, to_table
from entrypoint.errors import DataError

HEAD_ROWS = 200
"""Rows that decide on the columns of a file."""


def read_json(stream: IO[bytes], name: str, wanted: Wanted, head: bool) -> Iterator[Batch]:
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
    if wanted is not None:
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
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 text: {error.reason}", where=where, hint="convert the file to UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"not a JSON object: {error.msg} at column {error.colno}",
            where=where,
            hint="every line must be one whole JSON object (JSON Lines)",
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f"a row must be a JSON object, not {type(row).__name__}",
            where=where,
            hint='one object with the row\'s columns: {"prompt": …, "completion": …}',
        )
    return row


def _json_array(
    start: bytes, stream: IO[bytes], name: str, wanted: Wanted, head: bool
) -> Iterator[Batch]:
    """A file that is one array, object by object; more is read when one is not whole yet."""
    source = io.TextIOWrapper(
        io.BufferedReader(Chained(start, stream)), encoding="utf-8", errors="strict"
    )
    decoder = json.JSONDecoder()
    text, at, rows, first, row = "", 0, [], 1, 0
    ended = False
    opened = False
    try:
        while True:
            while at < len(text) and text[at] in (" \t\r\n," if opened else " \t\r\n["):
                opened = opened or text[at] == "["
                at += 1
            if at < len(text) and text[at] == "]":
                break
            try:
                value, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                more = "" if ended else source.read(CHUNK_BYTES)
                cut_short = error.msg.startswith("Unterminated") or error.pos >= len(text) - 16
                if more and (cut_short or not text):
                    text, at = text[at:] + more, 0
                    continue
                raise DataError(
                    f"not a JSON array of objects: {error.msg}"
                    + ("" if text[at:].strip() else "; the file is cut short"),
                    where=f"{name}, row {row + 1}",
                ) from error
            row += 1
            if not isinstance(value, dict):
                raise DataError(
                    f"a row must be a JSON object, not {type(value).__name__}",
                    where=f"{name}, row {row}",
                )
            rows.append(value)
            if len(rows) >= (HEAD_ROWS if head else ROWS):
                yield objects(rows, name, first, wanted)
                first, rows = row + 1, []
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 text: {error.reason}",
            where=f"{name}, after row {row}",
            hint="convert the file to UTF-8",
        ) from error
    if rows:
        yield objects(rows, name, first, wanted)
