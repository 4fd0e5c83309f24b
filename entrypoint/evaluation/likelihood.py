"""Log-likelihoods of a batch of sequences in one pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from entrypoint.evaluation.batches import Batch, Scored
from entrypoint.evaluation.generation import forward, prefix_cache

Score = Callable[[Scored], tuple[float, bool]]
"""From a sequence that may end in another token to the log-likelihood of its targets, and whether
each of them is the likeliest token."""


@torch.inference_mode()
def likelihoods(
    model: Any, batch: Batch, sequences: Sequence[Scored], *, keeps_logits: bool
) -> list[tuple[int, Score]]:
    """What scores each row of the batch.

    Rows are padded at their ends, where a causal model needs no mask.

    Args:
        keeps_logits: whether the model can leave out the logits that nobody asks for.
    """
    rows, shared, device = [sequences[row] for row in batch.rows], batch.shared, model.device
    inputs = torch.zeros(len(rows), batch.width - 1 - shared, dtype=torch.long)
    for place, row in enumerate(rows):
        inputs[place, : len(row.ids) - 1 - shared] = torch.tensor(row.ids[shared:-1])
    cache = prefix_cache(model, rows[0].ids[:shared], len(rows)) if shared else None
    first = min(row.targets[0] for row in rows) - 1
    last = max(row.targets[-1] for row in rows)
    kept: dict[str, Any] = {}
    if keeps_logits:
        kept = {"logits_to_keep": torch.arange(first - shared, last - shared, device=device)}
    else:
        first = shared
    logits, _ = forward(model, inputs.to(device), cache, use_cache=cache is not None, **kept)
    scores = []
    for place, (index, row) in enumerate(zip(batch.rows, rows, strict=True)):
        targets = torch.tensor(row.targets, device=device)
        found = torch.log_softmax(logits[place, targets - 1 - first].float(), dim=-1)
        wanted = torch.tensor([row.ids[target] for target in row.targets], device=device)
        scores.append((index, _score(found, wanted)))
    return scores


def _score(found: torch.Tensor, wanted: torch.Tensor) -> Score:
    """Of one row: its targets but the last are the same whatever is asked.

    Args:
        found: log-probabilities, [targets, vocabulary].
        wanted: the targets' tokens.
    """
    likeliest = found.argmax(-1)
    before = float(found.gather(1, wanted[:, None])[:-1].double().sum())
    before_equal = bool((likeliest == wanted)[:-1].all())
    last, last_likeliest = found[-1].clone(), int(likeliest[-1])

    def score(sequence: Scored) -> tuple[float, bool]:
        token = sequence.ids[sequence.targets[-1]]
        return before + float(last[token]), before_equal and token == last_likeliest

    return score
