"""Finds an allocator that serves training better, and has glibc's give memory back."""

import ctypes
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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

M_MMAP_THRESHOLD = -3
"""glibc's number of the setting, from malloc.h."""


def find(folders: Sequence[Path] = FOLDERS) -> Path | None:
    """The library to preload, or None where there is none."""
    places = (folder / name for name in NAMES for folder in folders)
    return next((path for path in places if path.is_file()), None)


def give_back_large_blocks() -> None:
    """Make glibc return freed blocks of a MiB and more to the system at once.

    By itself it raises this threshold up to 32 MiB as such blocks are freed; later ones then come
    from the heap, where what is kept lies between what was freed. Seen in `train quantize`: 1.6
    times the model in some runs, 1.1 in others. Does nothing without glibc.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


def give_back() -> None:
    """Have glibc return all that is free to the system. Does nothing without glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def giving_back(threshold: int = 32 << 20) -> Iterator[None]:
    """Return large blocks at once for a while, and in the end all that is free.

    Args:
        threshold: bytes, from then on; glibc takes no more than the default.
    """
    give_back_large_blocks()
    try:
        yield
    finally:
        give_back()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, threshold)
