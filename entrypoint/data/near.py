"""Rows that nearly repeat an earlier one, by MinHash."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from entrypoint.data.words import runs, texts, words
from entrypoint.errors import SettingsError

RUN = 5
"""Words in a row that are compared."""
PERMUTATIONS = 128


class NearDuplicates:
    """Finds rows whose runs of words are those of an earlier row for the most part.

    Keeps 128 numbers of each row that is written.

    Args:
        similarity: share of common runs (Jaccard) from which two rows are near duplicates.

    Raises:
        SettingsError: datasketch is not installed.
    """

    def __init__(self, similarity: float) -> None:
        try:
            import datasketch
        except ImportError as error:
            raise SettingsError(
                "to look for near duplicates takes the package datasketch",
                where="--near-duplicates",
                hint="python -m pip install datasketch",
            ) from error
        self._similarity = similarity
        self._minhash = datasketch.MinHash
        self._index = datasketch.MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)
        self._hashes: list[Any] = []

    def met(self, table: pa.Table, where: Callable[[int], str]) -> Mapping[str, Any]:
        hashes = self._minhash.bulk(
            [_runs(text) for text in texts(table)],
            num_perm=PERMUTATIONS,
            hashfunc=xxhash.xxh32_intdigest,
        )
        found = []
        for hashed in hashes:
            found.append(bool(self._alike(hashed)))
            # at once, so that rows of one batch find each other
            self._index.insert(len(self._hashes), hashed)
            self._hashes.append(hashed)
        return {"near-duplicates": np.array(found, bool)}

    def _alike(self, hashed: Any) -> bool:
        # the index finds candidates; their estimate decides
        return any(
            self._hashes[key].jaccard(hashed) >= self._similarity
            for key in self._index.query(hashed)
        )

    def keep(self, part: str, chosen: Any) -> None:
        """Rows that are left out stay in the index: what repeats them repeats what they repeat."""


def _runs(text: str) -> list[bytes]:
    found = words(text)
    return [run.encode() for run in runs(found, min(RUN, len(found) or 1))] or [text.encode()]
