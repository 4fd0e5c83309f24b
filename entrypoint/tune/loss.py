"""Cross-entropy that computes logits only where there is a label, some at a time."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from torchtune.modules import TiedLinear

Head = Callable[[torch.Tensor], torch.Tensor]
LossOfChunk = Callable[[torch.Tensor, slice], torch.Tensor]


class LabelledCrossEntropy(nn.Module):
    """Takes the place of a decoder's output head, and makes the model return its loss.

    Neither the logits of tokens without a label nor those of all tokens at once ever exist. The
    gradient of a piece is taken right after its loss, so its logits are given back before the next.

    Args:
        chunk: tokens whose logits are held at a time, in fp32.
    """

    ignore_index = CROSS_ENTROPY_IGNORE_IDX

    def __init__(self, chunk: int = 256) -> None:
        super().__init__()
        self.chunk = chunk
        self.labels: torch.Tensor | None = None
        """[batch, sequence] of the next forward pass."""

    def attach(self, model: Any) -> None:
        """From now on `model(...)` returns the sum of the loss over `labels`, a number."""

        def unembed(hidden: torch.Tensor) -> torch.Tensor:
            assert self.labels is not None
            at = labelled(self.labels)
            # the norm works token by token, so it too is only needed there
            chosen = model.norm(hidden.flatten(0, 1)[at])
            total: torch.Tensor = self(model.output, chosen, self.labels.flatten()[at])
            return total

        model.unembed = unembed

    def forward(self, head: Head, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum of the cross-entropy, in fp32.

        Args:
            head: from hidden states to logits.
            hidden: [tokens, embed_dim]
            labels: [tokens]
        """

        def loss(logits: torch.Tensor, piece: slice) -> torch.Tensor:
            return F.cross_entropy(logits.float(), labels[piece], reduction="sum")

        return sum_by_chunks(head, hidden, loss, self.chunk)


def labelled(labels: torch.Tensor) -> torch.Tensor:
    """Places of the tokens that have a label, in the flattened batch."""
    has_label: torch.Tensor = labels.flatten() != CROSS_ENTROPY_IGNORE_IDX
    return has_label.nonzero().squeeze(1)


def sum_by_chunks(head: Head, hidden: torch.Tensor, loss: LossOfChunk, chunk: int) -> torch.Tensor:
    """Sum of a loss over tokens, `chunk` of whose logits are held at a time.

    Args:
        head: from hidden states to logits.
        hidden: [tokens, embed_dim]
        loss: from the logits of a chunk, and which tokens they are of, to its sum, in fp32.
    """
    if torch.is_grad_enabled() and hidden.requires_grad:
        weights = [weight for weight in weights_of(head) if weight.requires_grad]
        total: torch.Tensor = _Chunked.apply(  # type: ignore[no-untyped-call]
            head, chunk, loss, hidden, *weights
        )
        return total
    total = hidden.new_zeros((), dtype=torch.float32)
    for piece in chunks(hidden, chunk):
        total = total + loss(head(hidden[piece]), piece)
    return total


def chunks(hidden: torch.Tensor, chunk: int) -> list[slice]:
    """The tokens of each chunk."""
    return [slice(start, start + chunk) for start in range(0, len(hidden), chunk)]


def weights_of(head: Head) -> list[nn.Parameter]:
    if isinstance(head, TiedLinear):  # no nn.Module, so that the weight is not counted twice
        return [head.tied_module.weight]
    assert isinstance(head, nn.Module)
    return list(head.parameters())


class _Chunked(torch.autograd.Function):
    """Loss and gradients of one chunk after the other, in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        head: Head,
        chunk: int,
        loss_of: LossOfChunk,
        hidden: torch.Tensor,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        of_hidden = torch.empty_like(hidden)
        of_weights = [torch.zeros_like(weight) for weight in weights]
        for piece in chunks(hidden, chunk):
            with torch.enable_grad():
                part = hidden[piece].detach().requires_grad_()
                loss = loss_of(head(part), piece)
            gradients = torch.autograd.grad(loss, (part, *weights))
            total += loss.detach()
            of_hidden[piece] = gradients[0]
            for sum_so_far, gradient in zip(of_weights, gradients[1:], strict=True):
                sum_so_far += gradient
        ctx.save_for_backward(of_hidden, *of_weights)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = [saved * gradient.to(saved.dtype) for saved in ctx.saved_tensors]
        return None, None, None, *scaled
