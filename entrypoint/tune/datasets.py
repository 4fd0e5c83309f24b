"""Data sets for the recipe, read lazily from checked JSON Lines files."""

import json
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from entrypoint.data.rows import Row, to_answered, to_sample

SCANNED_AT_ONCE = 4 << 20
NEWLINE = ord("\n")


class Rows(Sequence[Row]):
    """The rows of a JSON Lines file, each read when it is asked for.

    The file is mapped: all processes of a machine share its pages. Of a row that is not asked for,
    each holds only its place, 8 bytes.
    """

    def __init__(self, path: str | Path) -> None:
        with Path(path).open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._starts = self._line_starts()

    def _line_starts(self) -> Any:
        """Where the lines that are not blank begin."""
        whole = np.frombuffer(self._bytes, np.uint8)
        ends = [
            np.flatnonzero(whole[start : start + SCANNED_AT_ONCE] == NEWLINE) + start
            for start in range(0, len(whole), SCANNED_AT_ONCE)
        ]
        limits = np.concatenate([[-1], *ends, [len(whole)]])
        starts = limits[:-1] + 1
        # a row begins with a brace; whatever else a line begins with has to be looked at
        first = whole[np.minimum(starts, len(whole) - 1)]
        odd = np.flatnonzero(first != ord("{"))
        blank = [at for at in odd if not self._bytes[starts[at] : limits[at + 1]].strip()]
        return np.delete(starts, blank).astype(np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        start = int(self._starts[index])
        end = self._bytes.find(b"\n", start)
        return json.loads(self._bytes[start : end if end >= 0 else len(self._bytes)])


class Samples(Dataset[dict[str, list[int]]]):
    """Canonical rows as a tokenizer makes tokens of them.

    Args:
        tokenizer: given by the recipe; a sample to `tokens` and `mask`.
        data_files: a file of canonical rows.
    """

    def __init__(
        self, tokenizer: Callable[[dict[str, Any]], dict[str, Any]], data_files: str
    ) -> None:
        self._tokenizer, self._rows = tokenizer, Rows(data_files)

    def __len__(self) -> int:
        return len(self._rows)

    def encoded(self, sample: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Tokens, and labels of equal length."""
        encoded = self._tokenizer(sample)
        labels = [
            CROSS_ENTROPY_IGNORE_IDX if masked else token
            for token, masked in zip(encoded["tokens"], encoded["mask"], strict=True)
        ]
        return encoded["tokens"], labels


class ChatDataset(Samples):
    """Conversations, or texts, as `tokens` and `labels` of equal length.

    torchtune's own SFTDataset accepts only its Message class, which knows neither tools nor
    templates; this one hands the row's messages to the tokenizer as they are.
    """

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        tokens, labels = self.encoded(to_sample(self._rows[index]))
        return {"tokens": tokens, "labels": labels}


class PreferenceDataset(Samples):
    """Pairs of answers to one prompt, in the keys of torchtune's own PreferenceDataset.

    That one also trains on what the assistant says in the prompt, which both answers share; here
    only the answers have labels.
    """

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = self._rows[index]
        found: dict[str, list[int]] = {}
        for side in ("chosen", "rejected"):
            sample = {"messages": to_answered(row, side)}
            found[f"{side}_input_ids"], found[f"{side}_labels"] = self.encoded(sample)
        return found
