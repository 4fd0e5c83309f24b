"""Rows as runs of words, to find text that two places share. Pure."""

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return WORD.findall(text.lower())


def runs(found: list[str], length: int) -> Iterator[str]:
    """Every run of so many words."""
    for start in range(len(found) - length + 1):
        yield " ".join(found[start : start + length])


def texts(table: pa.Table) -> list[str]:
    """All text of each canonical row but its system messages and roles."""
    return [" \n ".join(_texts(row)) for row in table.to_pylist()]


def _texts(row: dict[str, Any]) -> Iterator[str]:
    for value in row.values():
        if isinstance(value, str):
            yield value
        for message in value if isinstance(value, list) else ():
            if message["role"] != "system":
                yield message["content"] or ""
