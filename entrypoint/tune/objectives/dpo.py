"""Direct preference optimization (Rafailov et al. 2023): chosen answers over rejected ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from entrypoint.tune.batches import Batch
from entrypoint.tune.frozen import asked
from entrypoint.tune.logprobs import AnswerLogProbs
from entrypoint.tune.objectives import Sums

PreferenceLoss = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""torchtune's interface: log-probabilities [pairs] of the trained model (chosen, rejected) and of
the reference, to losses, chosen and rejected rewards [pairs]."""


class IPOLoss(nn.Module):
    """The squared loss of identity preference optimization (Azar et al. 2023, equation 17).

    Args:
        beta: strength of the pull towards the reference; the paper's tau. The margin of
            log-probabilities is drawn to 1 / (2 beta), and no further.
    """

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__()
        self.beta = beta

    def forward(
        self,
        chosen: torch.Tensor,
        rejected: torch.Tensor,
        reference_chosen: torch.Tensor,
        reference_rejected: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses, chosen and rejected rewards, from log-probabilities of answers; all [pairs]."""
        gained, lost = chosen - reference_chosen, rejected - reference_rejected
        losses = (gained - lost - 1 / (2 * self.beta)) ** 2
        return losses, self.beta * gained.detach(), self.beta * lost.detach()


class DirectPreference:
    """The trained model against the reference on pairs of answers.

    Args:
        model: the decoder that is trained; its output is arranged for the loss.
        loss: IPOLoss, or torchtune's DPOLoss or RSOLoss.
        reference: the decoder to stay near to: `model` itself, whose adapters are then off, or
            another one. Not asked about pairs that it was asked about before.
    """

    shown: tuple[str, ...] = ("rewards/accuracies", "rewards/margins")

    def __init__(self, model: Any, loss: PreferenceLoss, reference: Any) -> None:
        self.model, self.loss, self.reference = model, loss, reference
        self.head = AnswerLogProbs()
        self.head.attach(model)
        if reference is not model:
            self.head.attach(reference)

    def count(self, batch: Batch) -> int:
        """Pairs."""
        return batch.pairs

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, Sums]:
        """Sum of the loss over pairs."""
        known = batch.reference
        before = self.reference_log_probs(batch) if known is None else known[: batch.pairs]
        now = self._log_probs(self.model, batch)
        losses, chosen, rejected = self.loss(*now.unbind(1), *before.unbind(1))
        logs = now.detach().sum(0)
        return losses.sum(), {
            "rewards/chosen": chosen.sum(),
            "rewards/rejected": rejected.sum(),
            "rewards/margins": (chosen - rejected).sum(),
            "rewards/accuracies": (chosen > rejected).sum(),
            "log_probs/chosen": logs[0],
            "log_probs/rejected": logs[1],
        }

    def reference_log_probs(self, batch: Batch) -> torch.Tensor:
        """What the reference says of the answers: [pairs, 2]."""
        with asked(self.reference):
            return self._log_probs(self.reference, batch)

    def _log_probs(self, model: Any, batch: Batch) -> torch.Tensor:
        self.head.batch = batch
        found: torch.Tensor = model(batch.tokens, mask=batch.mask, input_pos=batch.positions)
        return found
