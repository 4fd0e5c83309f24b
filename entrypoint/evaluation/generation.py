"""Greedy answers of many prompts at once."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

DROP_AT = 0.75
"""Share of rows still at work below which the finished ones are taken out of the batch."""


def arguments_of(model: Any) -> frozenset[str]:
    """Names of what the model's forward function takes, under a PEFT wrapper too."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(inner.forward).parameters)


def can_share(model: Any, longest: int) -> bool:
    """Whether a common beginning can be computed once for sequences of up to `longest` tokens.

    Models with a state instead of keys and values cannot go on from it, and where it is followed by
    padding, a sliding window that is shorter than a sequence would be shifted.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    has_cache = "logits_to_keep" in arguments_of(model) and not getattr(
        model, "_is_stateful", False
    )
    return has_cache and (window is None or longest < window)


def forward(
    model: Any, inputs: torch.Tensor, cache: Any = None, **rest: Any
) -> tuple[torch.Tensor, Any]:
    """Logits, and the keys and values to go on from."""
    # transformers 5.24 has renamed past_key_values
    name = "cache" if "cache" in arguments_of(model) else "past_key_values"
    found = model(inputs, **{name: cache}, **rest)
    return found.logits, found.get(name)


def prefix_cache(model: Any, ids: Sequence[int], rows: int) -> Any:
    """Keys and values of a common beginning, computed once, for so many rows."""
    tokens = torch.tensor([list(ids)], device=model.device)
    _, found = forward(model, tokens, use_cache=True, logits_to_keep=1)
    found.batch_repeat_interleave(rows)
    return found


@torch.inference_mode()
def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    shared: int,
    new_tokens: int,
    ends: frozenset[int],
    is_over: Callable[[list[int]], bool],
) -> list[list[int]]:
    """The likeliest next tokens of each prompt, one after the other.

    Rows are padded between their common beginning and the rest, so that all end at the same place;
    rows that are over leave the batch.

    Args:
        shared: tokens that all prompts begin with; at least one token of each comes after them.
        new_tokens: most tokens of an answer.
        ends: tokens that end an answer; they are part of it.
        is_over: whether the tokens of an answer hold a text that ends it.
    """
    device, count = model.device, len(prompts)
    width = max(len(prompt) for prompt in prompts) - shared
    mask = torch.ones(count, shared + width, dtype=torch.long)
    inputs = torch.zeros(count, width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        rest = torch.tensor(prompt[shared:])
        inputs[row, width - len(rest) :] = rest
        mask[row, shared : shared + width - len(rest)] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, shared:].to(device)
    mask, inputs = mask.to(device), inputs.to(device)
    cache = prefix_cache(model, prompts[0][:shared], count) if shared else None
    answers: list[list[int]] = [[] for _ in prompts]
    at_work = list(range(count))
    over = [False] * count
    for _ in range(new_tokens):
        logits, cache = forward(
            model,
            inputs,
            cache,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        tokens = logits[:, -1].argmax(-1)
        for row, token in zip(at_work, tokens.tolist(), strict=True):
            if not over[row]:
                answers[row].append(token)
                over[row] = token in ends or is_over(answers[row])
        left = [place for place, row in enumerate(at_work) if not over[row]]
        if not left:
            break
        if len(left) <= DROP_AT * len(at_work):
            keep = torch.tensor(left, device=device)
            cache.batch_select_indices(keep)
            mask, positions, tokens = mask[keep], positions[keep], tokens[keep]
            at_work = [at_work[place] for place in left]
        inputs = tokens[:, None]
        mask = torch.cat((mask, mask.new_ones(len(at_work), 1)), dim=1)
        positions = positions[:, -1:] + 1
    return answers
