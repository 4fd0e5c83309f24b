"""entrypoint.allocator: what is found where."""

from pathlib import Path

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
