"""What stock torchtune recipes are given: rows that are tokens already."""

import json
from pathlib import Path

from torch.utils.data import Dataset


class Tokenizer:
    """Only what the recipes ask a tokenizer for."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id


class Rows(Dataset):
    """Rows as they are in a file of token ids and labels."""

    def __init__(self, tokenizer: Tokenizer, path: str) -> None:
        self.rows = [json.loads(line) for line in Path(path).read_text().splitlines()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]
