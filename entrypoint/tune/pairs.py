"""Preference rows laid out: each is two answers to one prompt."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from entrypoint.data.windows import best_fit
from entrypoint.tune.batches import Batch, Encoded, Layout, Packed

SIDES = ("chosen", "rejected")


def sides(row: Any) -> list[Encoded]:
    """The two answers of a row in torchtune's keys, each with its prompt."""
    return [{"tokens": row[f"{side}_input_ids"], "labels": row[f"{side}_labels"]} for side in SIDES]


def length(row: Any) -> int:
    """Tokens of both answers, each with its prompt."""
    return sum(len(row[f"{side}_input_ids"]) for side in SIDES)


def reference(rows: Sequence[Any]) -> torch.Tensor | None:
    """What the reference has said of the rows before, if it has."""
    if any("reference" not in row for row in rows):
        return None
    return torch.tensor([row["reference"] for row in rows], dtype=torch.float32)


class PackedPairs(Layout):
    """Answers end to end, each behind its prompt; both answers of a row in the same window.

    Args:
        packed: the layout of single rows.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed

    def groups(self, rows: Sequence[Any]) -> list[list[int]]:
        return best_fit([length(row) for row in rows], self.packed.window)

    def batch(self, rows: Sequence[Any]) -> Batch:
        answers = [answer for row in rows for answer in sides(row)]
        lengths = torch.tensor([len(answer["tokens"]) for answer in answers])
        return replace(
            self.packed.batch(answers),
            pairs=len(rows),
            answers=torch.arange(len(answers)).repeat_interleave(lengths)[None],
            reference=reference(rows),
        )


class PaddedPairs(Layout):
    """Answers side by side, as torchtune's recipes have them; rows of like length together, so that
    there is little padding.

    Args:
        rows: rows of one forward pass.
        collate: torchtune's function, its padding bound: rows to tokens and labels, the chosen
            answers of all rows before the rejected ones.
    """

    def __init__(
        self, rows: int, collate: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    ) -> None:
        self.rows, self.collate = rows, collate

    def groups(self, rows: Sequence[Any]) -> list[list[int]]:
        longest = [max(len(answer["tokens"]) for answer in sides(row)) for row in rows]
        numbers = sorted(range(len(rows)), key=lambda row: (longest[row], row))
        return [numbers[start : start + self.rows] for start in range(0, len(rows), self.rows)]

    def batch(self, rows: Sequence[Any]) -> Batch:
        tokens, labels = self.collate(list(rows))
        labels = labels.roll(-1, dims=1)
        labels[:, -1] = CROSS_ENTROPY_IGNORE_IDX
        numbers = torch.arange(2 * len(rows)).view(-1, 2).T.reshape(-1, 1)
        return Batch(
            tokens=tokens,
            labels=labels,
            positions=None,
            mask=None,
            real=sum(length(row) for row in rows),
            trained=int((labels != CROSS_ENTROPY_IGNORE_IDX).sum()),
            pairs=len(rows),
            answers=numbers.expand_as(tokens),
            reference=reference(rows),
        )
