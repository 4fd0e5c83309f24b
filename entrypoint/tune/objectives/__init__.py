"""What is learned: each objective turns a batch into a loss."""

from collections.abc import Mapping
from typing import Protocol

import torch

from entrypoint.tune.batches import Batch

Sums = Mapping[str, torch.Tensor | float]
"""An objective's own figures by name, each summed over what `count` counts; in all batches the same
names, those that are silent included."""


class Objective(Protocol):
    """Something to learn from batches."""

    shown: tuple[str, ...]
    """Which of its own figures the progress line has."""

    def count(self, batch: Batch) -> int:
        """How many things the batch's sums are over: labels, say. Losses are means over them."""

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, Sums]:
        """The sum of the loss, a number to take gradients of, and the objective's own sums."""


def add(sums: dict[str, float], more: Sums) -> None:
    """Add to each sum, beginning with none."""
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + float(value)
