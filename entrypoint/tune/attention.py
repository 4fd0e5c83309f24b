"""Attention within rows of a packed window: rows of similar length side by side, in one product."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from entrypoint.data.windows import alike

BLOCK = 128
"""Queries at a time: what they cannot see of later keys is not computed."""


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
    """Causal attention of each row to itself; q, k, v and what is returned: [1, heads, tokens,
    head_dim]."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not dropout_p:
        attended: torch.Tensor = _Written.apply(q, k, v, arrangement)  # type: ignore[no-untyped-call]
        return attended
    beside = [part[0].transpose(0, 1).index_select(0, arrangement.tokens) for part in (q, k, v)]
    sizes = [group.rows * group.length for group in arrangement.groups]
    found = []
    for group, *cells in zip(
        arrangement.groups, *(torch.split(part, sizes) for part in beside), strict=True
    ):
        query, key, value = (
            part.unflatten(0, (group.rows, group.length)).transpose(1, 2) for part in cells
        )
        result = F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout_p, is_causal=True
        )
        found.append(result.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).index_select(0, arrangement.home).transpose(0, 1)[None]


class _Written(torch.autograd.Function):
    """Written out as batched products: forward and backward, PyTorch's fused attention takes twice
    as long on a CPU, for rows of a hundred tokens in bf16. Probabilities are not kept for the
    gradient but computed again."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, arrangement: Arrangement
    ) -> torch.Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.arrangement = arrangement
        flat = flatten(arrangement, q.shape[1])
        beside = [_rows_of(part).index_select(0, flat.source) for part in (q, k, v)]
        result = torch.empty_like(beside[0])
        for query, key, value, found in _by_group(arrangement, q.shape[1], *beside, result):
            for block, seen in _blocks(query.shape[1]):
                weights = _weights(query[:, block], key[:, seen])
                found[:, block] = torch.bmm(weights, value[:, seen])
        return _tokens_of(result.index_select(0, flat.home), q)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        arrangement: Arrangement = ctx.arrangement
        _, heads, _, head_dim = gradient.shape
        flat = flatten(arrangement, heads)
        beside = [
            _rows_of(part).index_select(0, flat.source) for part in (*ctx.saved_tensors, gradient)
        ]
        beside[3].index_fill_(0, flat.idle, 0)
        results = [torch.empty_like(part) for part in beside[:3]]
        for query, key, value, of_found, of_query, of_key, of_value in _by_group(
            arrangement, heads, *beside, *results
        ):
            for block, seen in reversed(_blocks(query.shape[1])):
                weights = _weights(query[:, block], key[:, seen])
                part = of_found[:, block]
                of_weights = torch.bmm(part, value[:, seen].transpose(1, 2))
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                of_query[:, block] = torch.bmm(of_scores, key[:, seen])
                to_key = torch.bmm(of_scores.transpose(1, 2), query[:, block])
                to_value = torch.bmm(weights.transpose(1, 2), part)
                if seen.stop == query.shape[1]:  # the last block, which comes first
                    of_key.copy_(to_key)
                    of_value.copy_(to_value)
                else:
                    of_key[:, seen] += to_key
                    of_value[:, seen] += to_value
        for result in results[:2]:
            result *= head_dim**-0.5
        found = [_tokens_of(result.index_select(0, flat.home), gradient) for result in results]
        if len(flat.repeated):
            at = arrangement.tokens[arrangement.repeated]
            for total, result in zip(found[1:], results[1:], strict=True):
                more = result.index_select(0, flat.repeated).view(-1, heads, head_dim)
                total[0].transpose(0, 1).index_add_(0, at, more)
        return (*found, None)


def _rows_of(part: torch.Tensor) -> torch.Tensor:
    """[1, heads, tokens, head_dim] -> [tokens x heads, head_dim]"""
    return part[0].transpose(0, 1).reshape(-1, part.shape[-1])


def _tokens_of(flat: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What `_rows_of` gave, in the shape that it was given."""
    _, heads, tokens, head_dim = like.shape
    return flat.view(tokens, heads, head_dim).transpose(0, 1)[None]


def _by_group(
    arrangement: Arrangement, heads: int, *flat: torch.Tensor
) -> list[tuple[torch.Tensor, ...]]:
    """For each group a view of each [cells x heads, head_dim], as [rows x heads, length,
    head_dim]."""
    sizes = [heads * group.rows * group.length for group in arrangement.groups]
    lengths = [group.length for group in arrangement.groups]
    divided = (torch.split(part, sizes) for part in flat)
    return [
        tuple(part.view(-1, length, part.shape[-1]) for part in parts)
        for length, *parts in zip(lengths, *divided, strict=True)
    ]


def _blocks(length: int) -> list[tuple[slice, slice]]:
    """Queries of each block, and the keys that they see; blocks are of about the same size."""
    count = max(round(length / BLOCK), 1)
    ends = [length * number // count for number in range(count + 1)]
    return [(slice(start, end), slice(0, end)) for start, end in pairwise(ends)]


def _weights(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Softmax of the scores, of queries that see all keys before them: [batch, queries, keys]."""
    mask = _causal(query.shape[1], key.shape[1], query.dtype)
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
    return torch.softmax(scores, dim=-1)


@functools.lru_cache(maxsize=64)
def _causal(queries: int, keys: int, dtype: torch.dtype) -> torch.Tensor:
    """0 where a query sees a key, -inf elsewhere; the queries are the last ones: [1, q, k]."""
    hidden = torch.full((1, queries, keys), float("-inf"), dtype=dtype)
    return hidden.triu(keys - queries + 1)
