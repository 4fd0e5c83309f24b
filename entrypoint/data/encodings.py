"""What is said of files that are not UTF-8 text."""

from entrypoint.errors import DataError

UTF16 = (b"\xff\xfe", b"\xfe\xff")


def refuse_utf16(start: bytes, name: str) -> None:
    """Say so when a file begins as UTF-16 text does, marked or not.

    Raises:
        DataError: it does.
    """
    # every other byte of what any of these files begins with is zero
    unmarked = start[:1] == b"\0" or start[1:2] == b"\0"
    if start.startswith(UTF16) or unmarked:
        raise DataError(
            "not UTF-8 text: it is UTF-16",
            where=name,
            hint="convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW",
        )


def not_utf8(error: UnicodeDecodeError, where: str) -> DataError:
    """The error for bytes that are none."""
    cut = error.reason == "unexpected end of data"
    return DataError(
        f"not UTF-8 text: {error.reason} (0x{error.object[error.start]:02x})",
        where=where,
        hint="it is cut short in the middle of a character"
        if cut
        else "convert the file: iconv -f LATIN1 -t UTF-8 FILE > NEW, if it is Latin-1",
    )
