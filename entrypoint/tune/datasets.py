"""Data sets for the recipe, read lazily from checked JSON Lines files."""

import json
import mmap
from array import array
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from entrypoint.data.rows import to_messages, to_tools
from entrypoint.tune.tokenizer import ChatTokenizer


class ChatDataset(Dataset[dict[str, list[int]]]):
    """Rows of a JSON Lines file as `tokens` and `labels` of equal length.

    torchtune's own SFTDataset accepts only its Message class, which knows neither tools nor
    templates; this one hands the row's messages to the tokenizer as they are. Of a row that is
    not asked for, only its place in the file is held.

    Args:
        tokenizer: given by the recipe.
        data_files: a file of canonical rows.
    """

    def __init__(self, tokenizer: ChatTokenizer, data_files: str) -> None:
        self._tokenizer = tokenizer
        with Path(data_files).open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._starts = array("Q")
        start = 0
        for line in iter(self._bytes.readline, b""):
            if line.strip():
                self._starts.append(start)
            start += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        start = self._starts[index]
        end = self._bytes.find(b"\n", start)
        row = json.loads(self._bytes[start : end if end >= 0 else len(self._bytes)])
        encoded: dict[str, Any] = self._tokenizer(
            {"messages": to_messages(row), "tools": to_tools(row)}
        )
        labels = [
            CROSS_ENTROPY_IGNORE_IDX if masked else token
            for token, masked in zip(encoded["tokens"], encoded["mask"], strict=True)
        ]
        return {"tokens": encoded["tokens"], "labels": labels}
