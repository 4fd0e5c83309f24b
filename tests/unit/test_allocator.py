"""entrypoint.allocator: what is found where."""

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from entrypoint import allocator


def test_the_smallest_library_is_preferred(tmp_path: Path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    assert allocator.find((first, second)) is None
    whole = first / "libtcmalloc.so.4"
    whole.touch()
    assert allocator.find((first, second)) == whole
    minimal = second / "libtcmalloc_minimal.so.4"
    minimal.touch()
    assert allocator.find((first, second)) == minimal


GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
LIBC = """
import ctypes
from entrypoint import allocator
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
libc.free.argtypes = (ctypes.c_void_p,)
class Usage(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena b c d mapped f g h i j".split()]
libc.mallinfo2.restype = Usage
def is_mapped():
    before = libc.mallinfo2().mapped
    libc.malloc(8 << 20)
    return libc.mallinfo2().mapped - before >= 8 << 20
libc.free(libc.malloc(20 << 20))
print(is_mapped())
with allocator.giving_back():
    print(is_mapped())
print(is_mapped())
allocator.give_back_large_blocks()
print(is_mapped())
"""
"""Asks glibc whether it takes a large block from the system: after one was freed, while large ones
are given back, after that, and when they are given back for good."""


@cache
def answers() -> list[str]:
    """Of a process of its own, whose settings nothing has changed before."""
    ended = subprocess.run((sys.executable, "-c", LIBC), capture_output=True, text=True, check=True)
    return ended.stdout.split()


@GLIBC
def test_blocks_freed_before_do_not_make_glibc_keep_later_ones():
    before, *_, for_good = answers()
    assert (before, for_good) == ("False", "True")


@GLIBC
def test_large_blocks_are_given_back_for_a_while():
    assert answers()[1:3] == ["True", "False"]
