"""Log-probabilities of whole answers, computed only where they have labels, some at a time."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from entrypoint.activations import CHUNK
from entrypoint.tune.batches import Batch
from entrypoint.tune.loss import Head, chunks, cross_entropy, labelled, weights_of


class AnswerLogProbs:
    """Takes the place of a decoder's output head: the model returns log-probabilities of answers.

    Logits exist for labelled tokens alone, some at a time. Where the head is not trained, their
    gradient is taken at once, token by token, and waits for the loss to say how much it counts. A
    trained head's logits are computed anew for it.

    Args:
        chunk: most tokens whose logits are held at a time.
    """

    def __init__(self, chunk: int = CHUNK) -> None:
        self.chunk = chunk
        self.batch: Batch | None = None
        """Of the next forward pass."""

    def attach(self, model: Any) -> None:
        """From now on `model(...)` returns [pairs, 2], in fp32: chosen and rejected answers."""

        def unembed(hidden: torch.Tensor) -> torch.Tensor:
            batch = self.batch
            assert batch is not None
            assert batch.answers is not None
            at = labelled(batch.labels)
            chosen = model.norm(hidden.flatten(0, 1)[at])
            each = self(model.output, chosen, batch.labels.flatten()[at])
            total = each.new_zeros(2 * batch.pairs)
            return total.index_add(0, batch.answers.flatten()[at], each).view(-1, 2)

        model.unembed = unembed

    def __call__(self, head: Head, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Log-probability of each label, in fp32: [tokens].

        Args:
            head: from hidden states to logits.
            hidden: [tokens, embed_dim]
            labels: [tokens]
        """

        def piecewise(part: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            return -F.cross_entropy(head(part).float(), wanted, reduction="none")

        trained = any(weight.requires_grad for weight in weights_of(head))
        learns = torch.is_grad_enabled() and (hidden.requires_grad or trained)
        if learns and not trained:
            each: torch.Tensor = _FrozenHead.apply(  # type: ignore[no-untyped-call]
                head, self.chunk, labels, hidden
            )
            return each
        found = []
        # without a token there is nothing, but something to take gradients of
        for piece in chunks(hidden, self.chunk) or [slice(None)]:
            given = hidden[piece], labels[piece]
            found.append(
                checkpoint(piecewise, *given, use_reentrant=False) if learns else piecewise(*given)
            )
        return torch.cat(found)


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities and their gradients by the hidden states, in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, head: Head, chunk: int, labels: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        found = hidden.new_empty(len(hidden), dtype=torch.float32)
        of_hidden = torch.empty_like(hidden)
        for piece in chunks(hidden, chunk):
            with torch.enable_grad():
                part = hidden[piece].detach().requires_grad_()
                logits = head(part)
            of_logits = logits.detach()
            found[piece] = -cross_entropy(of_logits, labels[piece])
            # no token's log-probability depends on another's hidden state
            (of_part,) = torch.autograd.grad(logits, part, of_logits)
            of_hidden[piece] = -of_part
        ctx.save_for_backward(of_hidden)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (of_hidden,) = ctx.saved_tensors
        return None, None, None, of_hidden * gradient[:, None].to(of_hidden.dtype)
