"""Files of rows, written as they come: counted, hashed, and put into another order if wanted."""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from entrypoint.data.arrays import mixed, numpy

SHUFFLED_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFile:
    """One file of canonical rows."""

    path: Path
    rows: int
    sha256: str
    longest: int
    """Characters of the longest line."""


class Writer:
    """A JSON Lines file to append lines to.

    Args:
        path: `os.devnull` for a dry run.
        order: remember what it takes to shuffle: 24 bytes a row.
    """

    def __init__(self, path: Path, *, order: bool = False) -> None:
        self.path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._sizes: list[Any] | None = [] if order else None
        self._keys: list[Any] = []
        self.rows = self.longest = 0

    def add(self, lines: pa.StringArray, keys: Any) -> None:
        """Append lines, each with its end.

        Args:
            keys: a hash of each row, to shuffle by.
        """
        if not len(lines):
            return
        if self._sizes is not None:
            self._sizes.append(numpy(pc.binary_length(lines)))
            self._keys.append(keys)
        self.rows += len(lines)
        self.longest = max(self.longest, pc.max(pc.utf8_length(lines)).as_py() - 1)
        self._append(_bytes(lines))

    def _append(self, data: Any) -> None:
        if self._pending is not None:
            self._pending.result()
        # a thread hashes while the next rows are worked on
        self._pending = self._pool.submit(self._digest.update, data)
        self._file.write(data)

    def finish(self, *, seed: int | None = None, most: int | None = None) -> RowFile:
        """Close the file and say what it is.

        Args:
            seed: shuffle by it.
            most: keep at most so many rows, of the shuffled order.
        """
        self.close()
        if seed is not None and self.path != Path(os.devnull):
            self._shuffle(seed, most)
        elif seed is not None and most is not None:
            self.rows = min(self.rows, most)
        return RowFile(
            path=self.path, rows=self.rows, sha256=self._digest.hexdigest(), longest=self.longest
        )

    def close(self) -> None:
        """Stop writing; the second time nothing happens."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None
        self._file.close()

    def _shuffle(self, seed: int, most: int | None) -> None:
        if not self._sizes:
            return
        sizes = np.concatenate(self._sizes).astype(np.int64)
        order = np.argsort(mixed(np.concatenate(self._keys), seed), kind="stable")[:most]
        starts = np.cumsum(sizes) - sizes
        unshuffled = self.path.with_name(f".{self.path.name}.unshuffled")
        self.path.rename(unshuffled)
        self._file, self._digest = self.path.open("wb"), hashlib.sha256()
        with unshuffled.open("rb") as source:
            descriptor = source.fileno()
            for some in np.array_split(order, max(1, len(order) // SHUFFLED_AT_ONCE)):
                places = zip(sizes[some].tolist(), starts[some].tolist(), strict=True)
                self._append(b"".join(os.pread(descriptor, *place) for place in places))
        self.rows = len(order)
        self.close()
        unshuffled.unlink()


def _bytes(lines: pa.StringArray) -> Any:
    """The lines' bytes, which lie one behind the other already."""
    _, offsets, data = lines.buffers()
    limits = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(data)[int(limits[0]) : int(limits[-1])]
