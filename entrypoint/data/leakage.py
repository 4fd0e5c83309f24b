"""Rows that hold text of the tasks that a model is to be scored on. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from entrypoint.data.words import runs, texts, words

RUN = 13
"""Words in a row, as in the contamination study of GPT-3 (Brown et al. 2020, appendix C)."""


class Leakage:
    """Finds rows that share a run of words with evaluation documents.

    Args:
        documents: their texts. One that is shorter than a run counts as a whole, unless it is
            shorter than half of one: such texts stand in any row by chance.
    """

    def __init__(self, documents: Iterable[str]) -> None:
        self._runs: set[int] = set()
        self._short: set[int] = set()
        for document in documents:
            found = words(document)
            if len(found) >= RUN:
                self._runs.update(map(hash, runs(found, RUN)))
            elif len(found) > RUN // 2:
                self._short.add(len(found))
                self._runs.add(hash(" ".join(found)))

    def met(self, table: pa.Table, where: Callable[[int], str]) -> Mapping[str, Any]:
        return {"leakage": np.array([self._leaks(text) for text in texts(table)], bool)}

    def _leaks(self, text: str) -> bool:
        found = words(text)
        lengths = {RUN, *self._short}
        return any(hash(run) in self._runs for length in lengths for run in runs(found, length))

    def keep(self, part: str, chosen: Any) -> None:
        """Nothing to remember."""
