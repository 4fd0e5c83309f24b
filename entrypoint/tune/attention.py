"""Attention within rows of a packed window: rows of similar length side by side, in one product."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from entrypoint.activations import ATTENTION_BLOCK, KEPT_PROBABILITIES
from entrypoint.data.windows import alike
from entrypoint.tune import products

SHORT = 1024
"""Longest row for which `_Written` is the faster one in fp32."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows side by side, each padded at its end to `length`."""

    rows: int
    length: int


@dataclass(frozen=True, eq=False, slots=True)
class Arrangement:
    """Where each token of a window is when its rows lie side by side, in groups.

    A place there is called a cell. A token that several rows begin with has a cell in each of them;
    its result is taken from one, its home.
    """

    groups: tuple[Group, ...]
    tokens: torch.Tensor
    """[cells] which token of the window is there; any, in padding"""
    home: torch.Tensor
    """[tokens]: cell"""
    repeated: torch.Tensor
    """Cells of tokens that have their home elsewhere."""
    idle: torch.Tensor
    """These, and padding."""
    asked: torch.Tensor | None = None
    """Tokens whose hidden states the decoder's last layer gives; None for all."""


def arrange(rows: Sequence[Sequence[int]], device: torch.device | None = None) -> Arrangement:
    """Put rows into groups in which they are alike in length.

    Args:
        rows: for each row, which tokens of the window it is made of.
    """
    lengths = [len(row) for row in rows]
    groups = [[rows[index] for index in group] for group in alike(lengths)]
    tokens: list[int] = []
    home: dict[int, int] = {}
    repeated: list[int] = []
    padding: list[int] = []
    for group in groups:
        for row in group:
            for cell, token in enumerate(row, len(tokens)):
                if home.setdefault(token, cell) != cell:
                    repeated.append(cell)
            tokens += row
            missing = len(group[0]) - len(row)
            padding += range(len(tokens), len(tokens) + missing)
            tokens += [0] * missing

    def index(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Arrangement(
        groups=tuple(Group(rows=len(group), length=len(group[0])) for group in groups),
        tokens=index(tokens),
        home=index([home[token] for token in range(len(home))]),
        repeated=index(repeated),
        idle=index(repeated + padding),
    )


@dataclass(frozen=True, eq=False, slots=True)
class Flat:
    """Rows of numbers, one for each token and head, and one for each cell and head.

    The first are in the order of [tokens, heads], the others of [heads, rows, length], group by
    group.
    """

    source: torch.Tensor
    """[cells x heads]: what of the first is there"""
    home: torch.Tensor
    """[tokens x heads]: where its result is"""
    repeated: torch.Tensor
    idle: torch.Tensor
    """Both as in Arrangement, for each head."""


@functools.lru_cache(maxsize=8)
def flatten(arrangement: Arrangement, heads: int) -> Flat:
    """The arrangement's indices, head by head."""
    parts, start = [], 0
    device = arrangement.tokens.device
    head = torch.arange(heads, device=device)
    for group in arrangement.groups:
        cells = group.rows * group.length
        within = torch.arange(cells, device=device)[:, None]
        parts.append(start * heads + head * cells + within)
        start += cells
    at = torch.cat(parts)
    source = torch.empty(len(at) * heads, dtype=torch.long, device=device)
    source[at] = arrangement.tokens[:, None] * heads + head
    return Flat(
        source=source,
        home=at[arrangement.home].flatten(),
        repeated=at[arrangement.repeated].flatten(),
        idle=at[arrangement.idle].flatten(),
    )


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    arrangement: Arrangement,
    dropout_p: float = 0.0,
) -> torch.Tensor:
    """Causal attention of each row to itself.

    Args:
        q: [1, heads, tokens, head_dim]; so is what is returned.
        k, v: [1, heads or fewer, tokens, head_dim]; each serves as many neighbouring heads of q.
    """
    longest = max(group.length for group in arrangement.groups)
    faster = q.dtype == torch.bfloat16 or longest <= SHORT
    if q.device.type == "cpu" and faster and not dropout_p:
        attended: torch.Tensor = _Written.apply(q, k, v, arrangement)  # type: ignore[no-untyped-call]
        return attended
    each = q.shape[1] // k.shape[1]
    beside = [part[0].transpose(0, 1).index_select(0, arrangement.tokens) for part in (q, k, v)]
    sizes = [group.rows * group.length for group in arrangement.groups]
    found = []
    for group, *cells in zip(
        arrangement.groups, *(torch.split(part, sizes) for part in beside), strict=True
    ):
        query, key, value = (
            part.unflatten(0, (group.rows, group.length)).transpose(1, 2) for part in cells
        )
        key, value = (
            part.repeat_interleave(each, 1) if each > 1 else part for part in (key, value)
        )
        result = F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout_p, is_causal=True
        )
        found.append(result.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).index_select(0, arrangement.home).transpose(0, 1)[None]


class _Written(torch.autograd.Function):
    """Written out as batched products: forward and backward, PyTorch's fused attention takes twice
    as long on a CPU, for rows of a hundred tokens. Heads that share a key are one product.
    Probabilities of short rows are kept for the gradient, those of long ones computed again."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, arrangement: Arrangement
    ) -> torch.Tensor:
        heads = k.shape[1]
        flat = flatten(arrangement, heads)
        beside = [_rows_of(part, heads).index_select(0, flat.source) for part in (q, k, v)]
        wide = [part.to(products.precision(q)) for part in beside]
        result = torch.empty_like(wide[0])
        kept = []
        for query, key, value, found in _by_group(arrangement, heads, *wide, result):
            for block, seen in _blocks(key.shape[1]):
                queries = _of_block(query, block, key)
                weights = _weights(queries, key[:, seen], block)
                _product(weights, value[:, seen], _of_block(found, block, key))
                if key.shape[1] <= KEPT_PROBABILITIES:
                    kept.append(weights.to(q.dtype))
        ctx.save_for_backward(*beside, *kept)
        ctx.arrangement = arrangement
        return _tokens_of(result.index_select(0, flat.home).to(q.dtype), q)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        arrangement: Arrangement = ctx.arrangement
        wide = products.precision(gradient)
        # asked for once: where layers are computed again, a second time is an error
        inputs = list(ctx.saved_tensors)
        beside, kept = [part.to(wide) for part in inputs[:3]], inputs[3:]
        head_dim = gradient.shape[-1]
        heads = len(beside[1]) // len(arrangement.tokens)
        flat = flatten(arrangement, heads)
        beside.append(_rows_of(gradient, heads).index_select(0, flat.source).to(wide))
        beside[3].index_fill_(0, flat.idle, 0)
        results = [torch.empty_like(part) for part in beside[:3]]
        for query, key, value, of_found, of_query, of_key, of_value in _by_group(
            arrangement, heads, *beside, *results
        ):
            blocks = _blocks(key.shape[1])
            known = [kept.pop(0) for _ in blocks] if key.shape[1] <= KEPT_PROBABILITIES else []
            for block, seen in reversed(blocks):
                queries, part = (_of_block(whole, block, key) for whole in (query, of_found))
                weights = known.pop().to(wide) if known else _weights(queries, key[:, seen], block)
                of_weights = torch.bmm(part, value[:, seen].transpose(1, 2))
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                _product(of_scores, key[:, seen], _of_block(of_query, block, key))
                to_key = of_scores.transpose(1, 2), queries
                to_value = weights.transpose(1, 2), part
                if block.stop == key.shape[1]:  # the last block, which comes first
                    _product(*to_key, of_key)
                    _product(*to_value, of_value)
                else:
                    of_key[:, seen] += torch.bmm(*to_key)
                    of_value[:, seen] += torch.bmm(*to_value)
        found = []
        for number, result in enumerate(results):
            total = result.index_select(0, flat.home)
            if number and len(flat.repeated):
                at = arrangement.tokens[arrangement.repeated]
                more = result.index_select(0, flat.repeated).view(len(at), -1)
                total.view(-1, more.shape[1]).index_add_(0, at, more)
            if number < 2:
                total *= head_dim**-0.5
            found.append(total.view(1, -1, heads * result.shape[1] // head_dim, head_dim))
        return (*(total.transpose(1, 2) for total in found), None)


def _rows_of(part: torch.Tensor, heads: int) -> torch.Tensor:
    """[1, q's heads or heads, tokens, head_dim] -> [tokens x heads, what belongs to each]"""
    return part[0].transpose(0, 1).reshape(part.shape[2] * heads, -1)


def _tokens_of(flat: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What `_rows_of` gave, in the shape that it was given."""
    _, heads, tokens, head_dim = like.shape
    return flat.view(tokens, heads, head_dim).transpose(0, 1)[None]


def _by_group(
    arrangement: Arrangement, heads: int, *flat: torch.Tensor
) -> list[tuple[torch.Tensor, ...]]:
    """For each group a view of each [cells x heads, size], as [rows x heads, length, size]."""
    sizes = [heads * group.rows * group.length for group in arrangement.groups]
    lengths = [group.length for group in arrangement.groups]
    divided = (torch.split(part, sizes) for part in flat)
    return [
        tuple(part.view(-1, length, part.shape[-1]) for part in parts)
        for length, *parts in zip(lengths, *divided, strict=True)
    ]


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Batched product of [batch, n, k] and [batch, k, m] into a view."""
    if out.is_contiguous():
        torch.bmm(left, right, out=out)
    else:  # what it would take one matrix after the other for
        out.copy_(torch.bmm(left, right))


def _of_block(queries: torch.Tensor, block: slice, key: torch.Tensor) -> torch.Tensor:
    """View of [batch, length, heads of a key x head_dim]: [batch, queries x heads, head_dim]"""
    part = queries[:, block]
    return part.view(len(part), -1, key.shape[-1])


def _blocks(length: int) -> list[tuple[slice, slice]]:
    """Queries of each block, and the keys that they see; blocks are of about the same size."""
    count = max(round(length / ATTENTION_BLOCK), 1)
    ends = [length * number // count for number in range(count + 1)]
    return [(slice(start, end), slice(0, end)) for start, end in pairwise(ends)]


def _weights(queries: torch.Tensor, key: torch.Tensor, block: slice) -> torch.Tensor:
    """Softmax of the scores: [batch, queries x heads of a key, keys].

    Args:
        queries: [batch, queries x heads of a key, head_dim], which see all keys before them.
        key: [batch, keys, head_dim]
        block: where in the row the queries are.
    """
    count = block.stop - block.start
    mask = _causal(count, key.shape[1], queries.shape[1] // count, queries.dtype)
    scale = queries.shape[-1] ** -0.5
    scores = queries.new_empty(len(queries), queries.shape[1], key.shape[1])
    # the mask afterwards: a product that is summed onto it would have it copied for each row first
    scores.baddbmm_(queries, key.transpose(1, 2), beta=0, alpha=scale).add_(mask)
    return torch.softmax(scores, dim=-1)


@functools.lru_cache(maxsize=64)
def _causal(queries: int, keys: int, each: int, dtype: torch.dtype) -> torch.Tensor:
    """0 where a query sees a key, -inf elsewhere; the queries are the last ones, each as often as
    heads share a key: [1, queries x each, keys]."""
    hidden = torch.full((queries, keys), float("-inf"), dtype=dtype).triu(keys - queries + 1)
    return hidden.repeat_interleave(each, 0)[None]
