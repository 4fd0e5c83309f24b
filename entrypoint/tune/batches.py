"""Which rows make which step, and the tensors that a model takes."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from entrypoint.data.windows import best_fit, twins
from entrypoint.tune.packing import Documents

Encoded = dict[str, list[int]]
"""A row as `tokens` and `labels` of equal length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The input of one forward pass."""

    tokens: torch.Tensor
    """[batch, sequence]"""
    labels: torch.Tensor
    """[batch, sequence]; of the token that follows, CROSS_ENTROPY_IGNORE_IDX for none"""
    positions: torch.Tensor | None
    """[batch, sequence] within each row; None counts from the sequence's start"""
    mask: Any
    """None for causal, or Documents, or a boolean [batch, sequence, sequence]"""
    real: int
    """Tokens that are no padding."""
    trained: int
    """Labels that are not ignored."""
    pairs: int = 0
    """Pairs of a chosen and a rejected answer."""
    answers: torch.Tensor | None = None
    """[batch, sequence], of pairs: the answer that a token is of, two of each pair, chosen first"""
    reference: torch.Tensor | None = None
    """[pairs, 2], of pairs: log-probabilities under the reference, where they are known"""

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        tensors: dict[str, Any] = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return replace(self, **tensors)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How an epoch's rows are divided into steps.

    The order is that of torchtune's recipes: a permutation drawn anew for each epoch.
    """

    rows: int
    """Rows of the data set."""
    rows_per_step: int
    """Of all processes together."""
    shuffle: bool
    max_steps: int | None
    """Of an epoch."""

    @property
    def steps(self) -> int:
        """Steps of an epoch; rows that do not fill the last one are left out."""
        whole = self.rows // self.rows_per_step
        return whole if self.max_steps is None else min(whole, self.max_steps)

    @property
    def rows_per_epoch(self) -> int:
        """Rows of an epoch that are learned from."""
        return self.steps * self.rows_per_step

    def order(self, epoch: int) -> torch.Tensor:
        """Row numbers in the order of that epoch (from 0)."""
        if not self.shuffle:
            return torch.arange(self.rows)
        return _permutation(self.rows, epoch)


@functools.lru_cache(maxsize=1)
def _permutation(rows: int, seed: int) -> torch.Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


class Layout:
    """Divides rows into groups, and makes a batch of each."""

    def groups(self, rows: Sequence[Encoded]) -> list[list[int]]:
        """Numbers of the rows that share a forward pass."""
        raise NotImplementedError

    def batch(self, rows: Sequence[Encoded]) -> Batch:
        """The input of one forward pass: rows of a group, in this order."""
        raise NotImplementedError

    def __call__(self, rows: Sequence[Encoded]) -> list[Batch]:
        return [self.batch([rows[index] for index in group]) for group in self.groups(rows)]


class Padded(Layout):
    """Rows side by side, padded to the longest, as torchtune's recipes have them.

    Args:
        rows: rows of one forward pass.
        collate: torchtune's function, its padding bound: rows to `tokens` and `labels`.
    """

    def __init__(self, rows: int, collate: Callable[..., dict[str, torch.Tensor]]) -> None:
        self.rows, self.collate = rows, collate

    def groups(self, rows: Sequence[Encoded]) -> list[list[int]]:
        numbers = list(range(len(rows)))
        return [numbers[start : start + self.rows] for start in numbers[:: self.rows]]

    def batch(self, rows: Sequence[Encoded]) -> Batch:
        collated = self.collate(list(rows))
        labels = collated["labels"].roll(-1, dims=1)
        labels[:, -1] = CROSS_ENTROPY_IGNORE_IDX
        return Batch(
            tokens=collated["tokens"],
            labels=labels,
            positions=collated.get("input_pos"),
            mask=collated.get("mask"),
            real=sum(len(row["tokens"]) for row in rows),
            trained=int((labels != CROSS_ENTROPY_IGNORE_IDX).sum()),
        )


class Packed(Layout):
    """Rows end to end, in as few windows as they fit into.

    Args:
        window: most tokens of one forward pass; a longer row has one to itself.
        by_document: whether the model takes Documents for a mask.
        labelled: whether hidden states are wanted of tokens with a label alone.
    """

    def __init__(self, window: int, by_document: bool, labelled: bool = False) -> None:
        self.window, self.by_document, self.labelled = window, by_document, labelled

    def groups(self, rows: Sequence[Encoded]) -> list[list[int]]:
        return best_fit([len(row["tokens"]) for row in rows], self.window)

    def batch(self, rows: Sequence[Encoded]) -> Batch:
        lengths = tuple(len(row["tokens"]) for row in rows)
        tokens = torch.tensor([[token for row in rows for token in row["tokens"]]])
        # the last token of a row has no successor in it
        labels = torch.tensor(
            [[label for row in rows for label in (*row["labels"][1:], CROSS_ENTROPY_IGNORE_IDX)]]
        )
        at = (labels[0] != CROSS_ENTROPY_IGNORE_IDX).nonzero().flatten().tolist()
        documents = Documents(
            lengths,
            twins([row["tokens"] for row in rows]),
            asked=tuple(at) if self.labelled and at else None,
        )
        return Batch(
            tokens=tokens,
            labels=labels,
            positions=torch.cat([torch.arange(length) for length in lengths])[None],
            mask=documents if self.by_document else documents.mask(tokens.device),
            real=sum(lengths),
            trained=len(at),
        )


def silent(batch: Batch) -> Batch:
    """The batch with nothing to learn: for a process that has run out of rows while the others
    have not, as all must make the same number of passes."""
    labels = torch.full_like(batch.labels, CROSS_ENTROPY_IGNORE_IDX)
    return replace(batch, labels=labels, real=0, trained=0, pairs=0)
