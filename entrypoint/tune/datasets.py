"""Data sets for torchtune's recipes, read from checked JSON Lines files."""

from typing import Any

import datasets
from torch.utils.data import Dataset
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from entrypoint.data.rows import to_messages, to_tools
from entrypoint.tune.tokenizer import ChatTokenizer


class ChatDataset(Dataset[dict[str, list[int]]]):
    """Rows of a JSON Lines file as `tokens` and `labels` of equal length.

    torchtune's own SFTDataset accepts only its Message class, which knows neither tools nor
    templates; this one hands the row's messages to the tokenizer as they are.

    Args:
        tokenizer: given by the recipe.
        data_files: a file of canonical rows.
    """

    def __init__(self, tokenizer: ChatTokenizer, data_files: str) -> None:
        self._tokenizer = tokenizer
        self._rows = datasets.load_dataset("json", data_files=data_files, split="train")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = self._rows[index]
        encoded: dict[str, Any] = self._tokenizer(
            {"messages": to_messages(row), "tools": to_tools(row)}
        )
        labels = [
            CROSS_ENTROPY_IGNORE_IDX if masked else token
            for token, masked in zip(encoded["tokens"], encoded["mask"], strict=True)
        ]
        return {"tokens": encoded["tokens"], "labels": labels}
