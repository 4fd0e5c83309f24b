"""Files of rows as Arrow tables of bounded size, whatever their format; bad places are named."""

import bz2
import csv as csv_module
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.ipc
import pyarrow.parquet as parquet

from entrypoint.data.batches import (
    CHUNK_BYTES,
    ROWS,
    TAIL_BYTES,
    Batch,
    Chained,
    Wanted,
    columnar,
)
from entrypoint.data.encodings import refuse_utf16
from entrypoint.data.json_rows import read_json
from entrypoint.errors import DataError

SUFFIXES = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
MAGIC = {
    b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow", b"\x1f\x8b": ".gz",
    b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst",
}  # fmt: skip


PROSE = (".txt", ".md", ".rst", ".html", ".pdf", ".docx")
"""Suffixes of files that are no rows unless they look like JSON."""
CSV_ROW, CSV_COLUMN = re.compile(r"Row #(?P<row>\d+): "), re.compile(r"column #(?P<column>\d+)")
SEMICOLON, COMMA, TAB = b";", b",", b"\t"


def schema(path: Path, name: str = "") -> pa.Schema:
    """Names and types of the columns, from the first rows.

    Args:
        name: what to call the file in messages.

    Raises:
        DataError: the file cannot be read as rows.
    """
    first = next(read(path, None, name, head=True), None)
    if first is None:
        raise DataError(
            "the file has no rows", where=name or path, hint="one JSON object on each line"
        )
    return first.table.schema


def read(path: Path, wanted: Wanted, name: str = "", *, head: bool = False) -> Iterator[Batch]:
    """The rows of a file, some megabytes at a time.

    Args:
        wanted: columns that matter, with their types; None takes what the first rows have.
        name: what to call the file in messages.
        head: the first rows are enough.

    Raises:
        DataError: it cannot be read as rows; names line or row.
    """
    name = name or str(path)
    kind, compression = "rows", ""
    try:
        kind, compression = kind_of(path)
        if kind == "parquet" and not compression:
            yield from _parquet(path, name, wanted)
            return
        with _opened(path, compression) as stream:
            yield from READERS[kind](stream, name, wanted, head)
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowInvalid) as error:
        raise DataError(
            f"cannot be read as {kind}{' in ' + compression if compression else ''}: "
            f"{_first_line(error)}",
            where=name,
            hint="the file is cut short or of another kind than its name says",
        ) from error


def kind_of(path: Path) -> tuple[str, str]:
    """Format and compression (".gz", or "") of a file: by its first bytes, where they say it, or
    else by its name.

    Raises:
        DataError: it is prose.
    """
    with path.open("rb") as file:
        start = file.read(8)
    found = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    named = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else ""
    compression = found if found in COMPRESSED else named
    if found and found not in COMPRESSED:
        return found, ""
    if suffixes and suffixes[-1] in SUFFIXES:
        return SUFFIXES[suffixes[-1]], compression
    with _opened(path, compression) as stream:
        line = stream.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t").split(b"\n")[0]
    if line[:1] in (b"{", b"["):
        return "json", compression
    if suffixes and suffixes[-1] in PROSE:
        raise DataError(
            "a file of plain text has no rows",
            where=path,
            hint='write each text as a line of its own, as JSON: {"text": …}',
        )
    return ("tsv" if TAB in line else "csv"), compression


@contextmanager
def _opened(path: Path, compression: str) -> Iterator[IO[bytes]]:
    openers: dict[str, Callable[..., Any]] = {
        "": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open,
        ".zst": lambda name, _: pa.input_stream(name, compression="zstd"),
    }  # fmt: skip
    with openers[compression](str(path), "rb") as stream:
        yield stream


def _separated(delimiter: str) -> Callable[..., Iterator[Batch]]:
    def reader(stream: IO[bytes], name: str, wanted: Wanted, head: bool) -> Iterator[Batch]:
        return _delimited(stream, name, delimiter)

    return reader


def _delimited(stream: IO[bytes], name: str, delimiter: str) -> Iterator[Batch]:
    start = stream.read(1 << 16)
    refuse_utf16(start, name)
    if not start.strip():
        return
    header = start.decode("utf-8-sig", errors="replace").splitlines()
    # what spreadsheets write where a comma is in every number
    first_line = start.split(b"\n")[0]
    if delimiter == "," and COMMA not in first_line and SEMICOLON in first_line:
        delimiter = ";"
    names = next(csv_module.reader(header, delimiter=delimiter))
    chained = Chained(start, stream)
    try:
        reader = pa_csv.open_csv(
            io.BufferedReader(chained),
            # rows are counted in order only without threads
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=CHUNK_BYTES),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
        first, last = 1, ""
        for batch in reader:
            if batch.num_rows:
                yield Batch(table=pa.Table.from_batches([batch]), file=name, first=first)
                first += batch.num_rows
                last = batch.column(batch.num_columns - 1)[-1].as_py() or ""
    except pa.ArrowInvalid as error:
        raise _separated_error(error, name, names) from error
    if _is_open(last, chained.tail):
        raise DataError(
            "a quote is never closed and takes in all that follows",
            where=f"{name}, row {first - 1}, column {names[-1]}",
            hint="close it, write a quote within quotes twice, or see whether the file is whole",
        )


def _is_open(value: str, tail: bytes) -> bool:
    """Whether a file's last value begins with a quote that the file's end does not close, which
    Arrow takes for closed."""
    written = value.replace('"', '""').encode()
    if len(written) < len(tail) or len(tail) < TAIL_BYTES:
        return bool(written) and tail.endswith(b'"' + written)
    return "\n" in value and tail.endswith(written[-TAIL_BYTES:])


def _separated_error(error: Exception, name: str, names: list[str]) -> DataError:
    """What Arrow says of a file of separated values, with the place where it says it."""
    said = _first_line(error)
    place, what = name, said
    # "CSV parse error: Row #3: Expected …", "In CSV column #0: Row #2: CSV conversion error …"
    if found := CSV_ROW.search(said):
        # the header is a row there
        place += f", row {int(found['row']) - 1}"
        what = said[found.end() :]
    if found := CSV_COLUMN.search(said):
        place += f", column {names[int(found['column'])]}"
    if "UTF8" in said:
        hint = "convert the file: iconv -f LATIN1 -t UTF-8 FILE > NEW, if it is Latin-1"
        return DataError("not UTF-8 text", where=place, hint=hint)
    return DataError(
        f"not a table of separated values: {what}",
        where=place,
        hint="quote values that hold a separator, a quote or a line break",
    )


def _parquet(path: Path, name: str, wanted: Wanted) -> Iterator[Batch]:
    with parquet.ParquetFile(path) as file:
        first = 1
        bytes_of_row = sum(
            file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)
        ) // max(file.metadata.num_rows, 1)
        at_once = max(min(ROWS, 2 * CHUNK_BYTES // max(bytes_of_row, 1)), 1)
        for batch in file.iter_batches(batch_size=at_once, use_threads=False):
            yield from _columnar(pa.Table.from_batches([batch]), name, first, wanted)
            first += batch.num_rows


def _arrow(stream: IO[bytes], name: str, wanted: Wanted, head: bool) -> Iterator[Batch]:
    source = pa.PythonFile(stream, mode="r")
    try:
        reader: Any = pyarrow.ipc.open_file(source)
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        stream.seek(0)
        batches = iter(pyarrow.ipc.open_stream(source))
    first = 1
    for batch in batches:
        for part in pa.Table.from_batches([batch]).to_batches(max_chunksize=ROWS):
            yield from _columnar(pa.Table.from_batches([part]), name, first, wanted)
            first += part.num_rows


def _columnar(table: pa.Table, name: str, first: int, wanted: Wanted) -> Iterator[Batch]:
    if table.num_rows:
        yield columnar(table, name, first, wanted)


def _parquet_stream(stream: IO[bytes], name: str, wanted: Wanted, head: bool) -> Iterator[Batch]:
    raise DataError(
        "a compressed Parquet file cannot be read",
        where=name,
        hint="unpack it; Parquet is compressed in itself",
    )


READERS: dict[str, Callable[..., Iterator[Batch]]] = {
    "json": read_json, "csv": _separated(","), "tsv": _separated("\t"), "arrow": _arrow,
    "parquet": _parquet_stream,
}  # fmt: skip


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
