"""Finds a memory allocator that serves training better than the C library's own."""

import platform
from collections.abc import Sequence
from pathlib import Path

FOLDERS = (
    Path(f"/usr/lib/{platform.machine()}-linux-gnu"),
    Path("/usr/lib64"),
    Path("/usr/lib"),
    Path("/usr/local/lib"),
)
NAMES = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
"""Shared libraries, best first. jemalloc is not among them: measured, it gained nothing over the
malloc settings of `command.CHILD_ENVIRONMENT`."""


def find(folders: Sequence[Path] = FOLDERS) -> Path | None:
    """The library to preload, or None where there is none."""
    places = (folder / name for name in NAMES for folder in folders)
    return next((path for path in places if path.is_file()), None)
