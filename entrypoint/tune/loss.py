"""Cross-entropy that computes logits only where there is a label, some at a time."""

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from torchtune.modules import TiedLinear

from entrypoint.activations import CHUNK

Head = Callable[[torch.Tensor], torch.Tensor]
LossOfChunk = Callable[[torch.Tensor, slice], torch.Tensor]
"""From the logits of a chunk, and which tokens they are of, to the loss's sum. Its gradient takes
the place of the logits."""

IN_CACHE = 16
"""Tokens whose probabilities a CPU holds in fp32 at a time."""


class LabelledCrossEntropy(nn.Module):
    """Takes the place of a decoder's output head, and makes the model return its loss.

    Neither the logits of tokens without a label nor those of all tokens at once ever exist. The
    gradient of a piece is taken right after its loss, so its logits are given back before the next.

    Args:
        chunk: most tokens whose logits are held at a time.
    """

    ignore_index = CROSS_ENTROPY_IGNORE_IDX

    def __init__(self, chunk: int = CHUNK) -> None:
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
            return cross_entropy(logits, labels[piece]).sum()

        return sum_by_chunks(head, hidden, loss, self.chunk)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Losses of tokens in fp32, [tokens]. Their gradients by the logits take the logits' place.

    Args:
        logits: [tokens, vocabulary]
        labels: [tokens]
    """
    losses = logits.new_empty(len(logits), dtype=torch.float32)
    for piece in chunks(logits, IN_CACHE if logits.device.type == "cpu" else len(logits)):
        known = F.log_softmax(logits[piece].float(), dim=-1)
        at = labels[piece][:, None]
        chosen = known.gather(1, at)
        losses[piece] = -chosen.squeeze(1)
        torch.exp(known, out=logits[piece])
        # p - 1, taken before it is rounded
        logits[piece].scatter_(1, at, chosen.expm1_().to(logits.dtype))
    return losses


def labelled(labels: torch.Tensor) -> torch.Tensor:
    """Places of the tokens that have a label, in the flattened batch."""
    has_label: torch.Tensor = labels.flatten() != CROSS_ENTROPY_IGNORE_IDX
    return has_label.nonzero().squeeze(1)


def sum_by_chunks(head: Head, hidden: torch.Tensor, loss: LossOfChunk, chunk: int) -> torch.Tensor:
    """Sum of a loss over tokens, `chunk` of whose logits are held at a time.

    Args:
        head: from hidden states to logits.
        hidden: [tokens, embed_dim]
    """
    weights = [weight for weight in weights_of(head) if weight.requires_grad]
    if torch.is_grad_enabled() and (hidden.requires_grad or weights):
        total: torch.Tensor = _Chunked.apply(  # type: ignore[no-untyped-call]
            head, chunk, loss, hidden, *weights
        )
        return total
    total = hidden.new_zeros((), dtype=torch.float32)
    for piece in chunks(hidden, chunk):
        total = total + loss(head(hidden[piece]), piece)
    return total


def chunks(hidden: torch.Tensor, chunk: int) -> list[slice]:
    """The tokens of each chunk; chunks are of about the same size."""
    ends = [
        0,
        *accumulate(len(part) for part in hidden.tensor_split(-(-len(hidden) // chunk) or 1)),
    ]
    return [slice(start, end) for start, end in pairwise(ends) if end > start]


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
                logits = head(part)
            of_logits = logits.detach()
            total += loss_of(of_logits, piece)
            gradients = torch.autograd.grad(logits, (part, *weights), of_logits)
            of_hidden[piece] = gradients[0]
            for sum_so_far, gradient in zip(of_weights, gradients[1:], strict=True):
                sum_so_far += gradient
        ctx.save_for_backward(of_hidden, *of_weights)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = [saved * gradient.to(saved.dtype) for saved in ctx.saved_tensors]
        return None, None, None, *scaled
