"""Files of rows as Arrow tables of bounded size, whatever their format; bad places are named."""

import bz2
import csv as csv_module
import gzip
import io
import lzma
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
    Batch,
    Chained,
    Wanted,
    columnar,
    refuse_utf16,
)
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


def schema(path: Path) -> pa.Schema:
    """Names and types of the columns, from the first rows.

    Raises:
        DataError: the file cannot be read as rows.
    """
    first = next(read(path, None, head=True), None)
    if first is None:
        raise DataError("the file has no rows", where=path, hint="one JSON object on each line")
    return first.table.schema


def read(path: Path, wanted: Wanted, *, head: bool = False) -> Iterator[Batch]:
    """The rows of a file, some megabytes at a time.

    Args:
        wanted: columns that matter, with their types; None takes what the first rows have.
        head: the first rows are enough.

    Raises:
        DataError: it cannot be read as rows; names line or row.
    """
    kind, compression = kind_of(path)
    try:
        if kind == "parquet" and not compression:
            yield from _parquet(path, str(path), wanted)
            return
        with _opened(path, compression) as stream:
            yield from READERS[kind](stream, str(path), wanted, head)
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowInvalid) as error:
        raise DataError(
            f"cannot be read as {kind}{' in ' + compression if compression else ''}: "
            f"{_first_line(error)}",
            where=path,
            hint="the file is cut short or of another kind than its name says",
        ) from error


def kind_of(path: Path) -> tuple[str, str]:
    """Format and compression (".gz", or "") of a file, by its name or else its first bytes."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else ""
    if suffixes and suffixes[-1] in SUFFIXES:
        return SUFFIXES[suffixes[-1]], compression
    with path.open("rb") as file:
        start = file.read(8)
    found = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "")
    if found in COMPRESSED:
        compression = found
    elif found:
        return found, ""
    with _opened(path, compression) as stream:
        line = stream.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t").split(b"\n")[0]
    if line[:1] in (b"{", b"["):
        return "json", compression
    return ("tsv" if b"\t" in line else "csv"), compression


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
    names = next(csv_module.reader(header, delimiter=delimiter))
    try:
        reader = pa_csv.open_csv(
            io.BufferedReader(Chained(start, stream)),
            # rows are counted in order only without threads
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=CHUNK_BYTES),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
        first = 1
        for batch in reader:
            table = pa.Table.from_batches([batch])
            if table.num_rows:
                yield Batch(table=table, file=name, first=first)
            first += table.num_rows
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise DataError(
                f"not UTF-8 text: {_first_line(error)}", where=name, hint="convert it to UTF-8"
            ) from error
        raise DataError(
            f"not a table of separated values: {_first_line(error)}",
            where=name,
            hint="quote values that hold a separator, a quote or a line break",
        ) from error


def _parquet(path: Path, name: str, wanted: Wanted) -> Iterator[Batch]:
    with parquet.ParquetFile(path) as file:
        first = 1
        for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
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
