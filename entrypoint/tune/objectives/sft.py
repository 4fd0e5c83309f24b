"""Supervised fine-tuning: the next token, where it has a label."""

from typing import Any

import torch
from torch import nn

from entrypoint.tune.batches import Batch
from entrypoint.tune.loss import LabelledCrossEntropy
from entrypoint.tune.objectives import Sums


class SupervisedFineTuning:
    """Cross-entropy of the labels.

    Args:
        model: a decoder; its output is arranged for the loss.
        loss: LabelledCrossEntropy, or one of torchtune's, which means over the labels.
    """

    def __init__(self, model: Any, loss: nn.Module) -> None:
        self.model, self.loss = model, loss
        if isinstance(loss, LabelledCrossEntropy):
            loss.attach(model)
        elif chunks := getattr(loss, "num_output_chunks", 0):
            model.set_num_output_chunks(chunks)

    shown: tuple[str, ...] = ()

    def count(self, batch: Batch) -> int:
        """Labels."""
        return batch.trained

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, Sums]:
        """Sum of the loss over the batch's labels."""
        return self._total(batch), {}

    def _total(self, batch: Batch) -> torch.Tensor:
        if isinstance(self.loss, LabelledCrossEntropy):
            self.loss.labels = batch.labels
            total: torch.Tensor = self._run(batch)
            return total
        logits, labels = self._run(batch), batch.labels
        if not batch.trained:  # a mean over nothing is no number, nor is its gradient
            chunks = logits if isinstance(logits, list) else [logits]
            return torch.stack([chunk.sum() for chunk in chunks]).sum() * 0
        if not isinstance(logits, list):
            logits, labels = logits.flatten(0, 1), labels.flatten()
        mean: torch.Tensor = self.loss(logits, labels)
        return mean * batch.trained

    def _run(self, batch: Batch) -> Any:
        return self.model(batch.tokens, mask=batch.mask, input_pos=batch.positions)
