"""Rows laid end to end in windows, each row attending to itself alone.

A window is one sequence without padding. Which rows share one changes nothing in what is learned:
positions start anew with every row, attention stays within it, and the loss is a sum over labels.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchtune.models.gemma2._attention import Gemma2Attention
from torchtune.modules import MultiHeadAttention


def best_fit(lengths: Sequence[int], window: int) -> list[list[int]]:
    """Indices of rows for each window, in ascending order; rows longer than one are alone.

    Longest rows first, each into the window that it fills best: at most 11/9 of the fewest
    windows possible, and one more (Johnson 1973).
    """
    windows: list[list[int]] = []
    # (room left, window), ascending: the first with room enough is the best
    open_windows: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        found = bisect.bisect_left(open_windows, (lengths[index], -1))
        if found < len(open_windows):
            room, number = open_windows.pop(found)
            windows[number].append(index)
        else:
            room, number = max(window, lengths[index]), len(windows)
            windows.append([index])
        bisect.insort(open_windows, (room - lengths[index], number))
    return sorted(sorted(rows) for rows in windows)


@dataclass(frozen=True, slots=True)
class Documents:
    """Stands for an attention mask: which stretches of a window are one row each.

    The model hands it from layer to layer as it would a mask.
    """

    lengths: tuple[int, ...]
    """Tokens of each row; they sum to the window's."""

    def mask(self, device: torch.device) -> torch.Tensor:
        """The same as a mask, block-diagonal and causal: [1, tokens, tokens], True where seen."""
        blocks = [torch.ones(length, length, dtype=torch.bool).tril() for length in self.lengths]
        whole: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        return whole[None].to(device)


class DocumentAttention:
    """A replacement of torchtune's attention call that takes Documents for a mask.

    Row by row, so that nothing is computed for pairs of tokens of different rows.

    Args:
        stock: what it replaces, called for any other mask.
    """

    def __init__(self, stock: Any) -> None:
        self.stock = stock

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: Any,
        dropout_p: float,
        is_causal: bool,
    ) -> torch.Tensor:
        """q, k, v, and what is returned: [1, heads, tokens, head_dim]."""
        if not isinstance(mask, Documents):
            attended: torch.Tensor = self.stock(
                q, k, v, mask=mask, dropout_p=dropout_p, is_causal=is_causal
            )
            return attended
        rows = zip(*(part.split(mask.lengths, dim=2) for part in (q, k, v)), strict=True)  # type: ignore[no-untyped-call]
        return torch.cat(
            [
                F.scaled_dot_product_attention(
                    query, key, value, dropout_p=dropout_p, is_causal=True
                )
                for query, key, value in rows
            ],
            dim=2,
        )


def attend_by_document(model: nn.Module) -> bool:
    """Let a model take Documents for a mask; False for one that needs the mask itself, as Gemma 2
    does, whose attention is written out in torchtune."""
    if any(isinstance(module, Gemma2Attention) for module in model.modules()):
        return False
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module._attention_call = DocumentAttention(module._attention_call)
    return True
