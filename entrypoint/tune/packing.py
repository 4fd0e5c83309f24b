"""Rows laid end to end in windows, each row attending to itself alone.

A window is one sequence without padding. Which rows share one changes nothing in what is learned:
positions start anew with every row, attention stays within it, and the loss is a sum over labels.
"""

import bisect
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import nn
from torchtune.models.gemma2._attention import Gemma2Attention
from torchtune.modules import MultiHeadAttention, TransformerSelfAttentionLayer

from entrypoint.tune.attention import Arrangement, arrange, attend


@dataclass(frozen=True, slots=True)
class Documents:
    """Stands for an attention mask: which stretches of a window are one row each.

    The model hands it from layer to layer as it would a mask.
    """

    lengths: tuple[int, ...]
    """Tokens of each row; they sum to the window's."""
    twins: tuple[int, ...] | None = None
    """For each token of the window the first one with the same beginning of a row up to it, itself
    in most cases: all that a model computes of the two is the same. None when all are the first."""
    asked: tuple[int, ...] | None = None
    """Tokens whose hidden states are wanted in the end, others being zeros; None for all."""

    def mask(self, device: torch.device) -> torch.Tensor:
        """The same as a mask, block-diagonal and causal: [1, tokens, tokens], True where seen."""
        blocks = [torch.ones(length, length, dtype=torch.bool).tril() for length in self.lengths]
        whole: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        return whole[None].to(device)


@dataclass(frozen=True, eq=False, slots=True)
class Window:
    """What a model needs to know of Documents."""

    tokens: int
    arrangement: Arrangement
    kept: torch.Tensor | None
    """Tokens that are computed; None when all are."""
    places: torch.Tensor | None
    """[tokens of the window]: which of these stands for each; None where tokens are asked for, or
    each stands for itself"""
    asked: torch.Tensor | None
    """As in Documents."""


@functools.lru_cache(maxsize=4)
def window_of(documents: Documents, device: torch.device) -> Window:
    """The documents' window; tokens that begin several rows are computed once, and none behind the
    last one of a row that is asked for."""
    tokens = sum(documents.lengths)
    rows = seen_by_asked(documents)
    twins = range(tokens) if documents.twins is None else documents.twins
    kept = sorted({twins[token] for row in rows for token in row})
    number = {token: place for place, token in enumerate(kept)}
    arrangement = arrange([[number[twins[token]] for token in row] for row in rows], device)
    index = functools.partial(torch.tensor, device=device)
    asked, places = None, None
    if documents.asked is not None:
        asked = index(documents.asked)
        places_asked = index([number[twins[token]] for token in documents.asked])
        arrangement = replace(arrangement, asked=places_asked)
    elif documents.twins is not None:
        places = index([number[twin] for twin in twins])
    return Window(tokens, arrangement, index(kept) if len(kept) < tokens else None, places, asked)


def seen_by_asked(documents: Documents) -> list[range]:
    """Tokens of each row up to the last one that is asked for: no other sees those behind it. Rows
    of which none is asked for are left out."""
    starts = [0, *accumulate(documents.lengths)]
    rows = [range(start, end) for start, end in pairwise(starts)]
    if documents.asked is None:
        return rows
    last = dict.fromkeys(range(len(rows)), -1)
    for token in sorted(documents.asked):
        last[bisect.bisect_right(starts, token) - 1] = token
    return [range(row[0], last[number] + 1) for number, row in enumerate(rows) if last[number] >= 0]


class DocumentAttention:
    """A replacement of torchtune's attention call that takes an Arrangement for a mask.

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
        """q and what is returned: [batch, heads, tokens, head_dim]; k, v may have fewer heads."""
        if isinstance(mask, Arrangement):
            return attend(q, k, v, mask, dropout_p)
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
        attended: torch.Tensor = self.stock(
            q, k, v, mask=mask, dropout_p=dropout_p, is_causal=is_causal
        )
        return attended


def attend_by_document(model: Any) -> bool:
    """Let a decoder take Documents for a mask; False for one that needs the mask itself, as Gemma 2
    does, whose attention is written out in torchtune."""
    if any(isinstance(module, Gemma2Attention) for module in model.modules()):
        return False
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module._attention_call = DocumentAttention(module._attention_call)
            # torchtune would copy each key and value for all the heads that share it
            module.num_kv_heads = module.num_heads
    ends_early = _end_where_asked(model.layers[-1])
    stock, drops = model.forward, _has_dropout(model)

    def forward(
        tokens: torch.Tensor,
        *,
        mask: Any = None,
        input_pos: torch.Tensor | None = None,
        **others: Any,
    ) -> Any:
        if not isinstance(mask, Documents):
            return stock(tokens, mask=mask, input_pos=input_pos, **others)
        if drops and model.training:  # what is dropped differs from row to row
            mask = replace(mask, twins=None)
        if not ends_early:
            mask = replace(mask, asked=None)
        window = window_of(mask, tokens.device)
        if window.kept is not None:
            assert input_pos is not None
            tokens, input_pos = tokens[:, window.kept], input_pos[:, window.kept]
        with _all_tokens(model, window):
            return stock(tokens, mask=window.arrangement, input_pos=input_pos, **others)

    model.forward = forward
    return True


def _end_where_asked(layer: Any) -> bool:
    """Let the last layer compute its feed-forward part where somebody asks for the result: nothing
    that follows mixes tokens. False for a layer that is not built like that."""
    inner = getattr(layer, "_checkpoint_wrapped_module", layer)
    if not isinstance(inner, TransformerSelfAttentionLayer):
        return False
    stock = inner.forward

    def forward(x: torch.Tensor, *, mask: Any = None, input_pos: Any = None, **others: Any) -> Any:
        asked = mask.asked if isinstance(mask, Arrangement) else None
        if asked is None:
            return stock(x, mask=mask, input_pos=input_pos, **others)
        normed = inner.sa_norm(x)
        attended = inner.sa_scale(inner.attn(normed, normed, mask=mask, input_pos=input_pos))
        hidden = attended.index_select(1, asked) + x.index_select(1, asked)
        return hidden + inner.mlp_scale(inner.mlp(inner.mlp_norm(hidden)))

    inner.forward = forward
    return True


@contextmanager
def _all_tokens(model: Any, window: Window) -> Iterator[None]:
    """The decoder's last step gets hidden states for all tokens of the window again."""
    places, asked, tokens = window.places, window.asked, window.tokens
    if places is None and asked is None:
        yield
        return
    unembed, own = model.unembed, "unembed" in vars(model)

    def spread(hidden: torch.Tensor) -> torch.Tensor:
        if asked is not None:
            return hidden.new_zeros(1, tokens, hidden.shape[-1]).index_copy(1, asked, hidden)
        assert places is not None
        return hidden.index_select(1, places)

    model.unembed = lambda hidden: unembed(spread(hidden))
    try:
        yield
    finally:
        if own:
            model.unembed = unembed
        else:
            del model.unembed


def _has_dropout(model: nn.Module) -> bool:
    return any(
        getattr(module, "p" if isinstance(module, nn.Dropout) else "attn_dropout", 0)
        for module in model.modules()
    )
