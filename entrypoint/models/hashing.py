"""Hash a file while it is written."""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from entrypoint.hub import RemoteFile


class Hashing:
    """A file to append to, hashed on the way. A thread hashes, so that it costs no time.

    Args:
        path: may hold the beginning already.
        expected: size and hash of the whole.
    """

    def __init__(self, path: Path, expected: RemoteFile) -> None:
        self._expected = expected
        self._file: IO[bytes] = path.open("a+b")
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._digest = self._fresh()
        self._file.seek(0)
        while block := self._file.read(1 << 20):
            self._digest.update(block)

    def _fresh(self) -> Any:
        if self._expected.sha256 is not None:
            return hashlib.sha256()
        # what git calls a blob's id
        return hashlib.sha1(b"blob %d\0" % self._expected.size, usedforsecurity=False)

    def __enter__(self) -> "Hashing":
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self._pool.shutdown()
        self._file.close()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def write(self, data: bytes) -> int:
        self._wait()
        self._pending = self._pool.submit(self._digest.update, data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def truncate(self) -> int:
        """Start again: the server does not resume."""
        self._wait()
        self._digest = self._fresh()
        return self._file.truncate(0)

    @property
    def matches(self) -> bool:
        expected = self._expected.sha256 or self._expected.git_id
        return expected in (None, self._digest.hexdigest())
