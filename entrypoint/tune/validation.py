"""The loss on held-out rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import nn

from entrypoint.tune.batches import Batch, Encoded, silent
from entrypoint.tune.objectives import Objective, add
from entrypoint.tune.stopping import Stop
from entrypoint.tune.worlds import Ranks

ROWS_AT_ONCE = 16
"""Rows that are laid out together, of each process, and between two looks for a signal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """Held-out rows, and how often they are looked at."""

    rows: Sequence[Encoded]
    every: int
    """Steps."""
    patience: int | None
    """Looks without a lower loss after which training ends; None for never."""
    layout: Callable[[Sequence[Encoded]], list[Batch]]

    def loss(
        self,
        model: nn.Module,
        objective: Objective,
        ranks: Ranks,
        stop: Stop,
    ) -> tuple[float, dict[str, float]] | int:
        """Means of the loss and of the objective's own figures over all rows, in all processes
        together; the signal's number when one came meanwhile."""
        own = range(ranks.rank, len(self.rows), ranks.size)
        # the same number of rounds for all: the first process has the most rows
        most = range(0, len(range(0, len(self.rows), ranks.size)), ROWS_AT_ONCE)
        total, count, sums = 0.0, 0, dict[str, float]()
        model.eval()
        with torch.no_grad():
            for start in most:
                # a process without a row left makes the passes of the others with its first one
                rows = [self.rows[row] for row in own[start : start + ROWS_AT_ONCE]]
                batches = self.layout(rows)
                passes, stopped = ranks.largest(len(batches), stop.number)
                if stopped:
                    model.train()
                    return int(stopped)
                idle = [] if len(batches) == passes else [silent(self.layout([self.rows[0]])[0])]
                for batch in padded(batches, idle, int(passes)):
                    part, figures = objective(batch.to(ranks.device))
                    total, count = total + float(part), count + objective.count(batch)
                    add(sums, figures)
        model.train()
        total, whole, *own_totals = ranks.total(total, count, *sums.values())
        count = max(int(whole), 1)
        return total / count, {
            name: value / count for name, value in zip(sums, own_totals, strict=True)
        }


def padded(batches: list[Batch], idle: list[Batch], passes: int) -> list[Batch]:
    """The batches, and an idle one for each further pass that other processes make."""
    return [batch or idle[0] for batch, _ in zip_longest(batches, range(passes))]
