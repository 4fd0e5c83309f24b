"""Which sequences go through the model together, and what of them is computed once. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

LEAST_SHARED = 8
"""Tokens of a common beginning below which computing it once costs more than it saves."""
PASS_COST = 32
"""What starting a pass costs, in tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a batch may take."""

    rows: int
    tokens: int | None = None
    """Rows times the longest one; None for any number."""
    room: int | None = None
    """Bytes; None for any number."""
    token_bytes: int = 0
    """Of a token's activations and, where they are kept, keys and values."""
    logit_bytes: int = 0
    """Of a position whose logits are kept."""
    new_tokens: int = 0
    """That each row grows by."""

    def fits(self, rows: int, width: int, kept: int = 1) -> bool:
        """Whether so many rows of `width` tokens, with `kept` logits each, are within them."""
        width += self.new_tokens
        needed = rows * (width * self.token_bytes + kept * self.logit_bytes)
        return (
            rows <= self.rows
            and (self.tokens is None or rows * width <= self.tokens)
            and (self.room is None or needed <= self.room)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Tokens, and which of them are predicted."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    """Positions in `ids`, ascending, none of them 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Sequences, by their indices, that go through the model together."""

    rows: tuple[int, ...]
    shared: int
    """Tokens that all begin with, and whose keys and values are computed once."""
    width: int
    """Tokens of the longest one."""

    @property
    def cost(self) -> int:
        """Tokens that the model computes, and what a pass costs besides."""
        rest = len(self.rows) * (self.width - self.shared)
        return rest + self.shared + PASS_COST * (2 if self.shared else 1)


def cheapest(sequences: Sequence[Scored], limits: Limits, *, share: bool = True) -> list[Batch]:
    """Batches of all sequences that compute the fewest tokens.

    Two orders are tried: by length, which pads little, and by context, which lets the choices of a
    question share it.

    Args:
        share: whether the model can go on from keys and values.
    """
    by_length = sorted(range(len(sequences)), key=lambda row: -len(sequences[row].ids))
    plans = [cut(by_length, sequences, limits, share=share)]
    contexts: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in by_length:
        contexts[sequences[row].ids[: sequences[row].targets[0]]].append(row)
    if share and len(contexts) < len(sequences):
        groups = (cut(rows, sequences, limits, share=True) for rows in contexts.values())
        plans.append([batch for group in groups for batch in group])
    return min(plans, key=lambda plan: sum(batch.cost for batch in plan))


def cut(
    order: Iterable[int], sequences: Sequence[Scored], limits: Limits, *, share: bool
) -> list[Batch]:
    """Cut rows in this order, the longest first, into batches within the limits."""
    batches: list[list[int]] = []
    width = kept = 0
    for row in order:
        sequence = sequences[row]
        wider = max(width, len(sequence.ids))
        span = max(kept, sequence.targets[-1] - sequence.targets[0] + 1)
        if batches and limits.fits(len(batches[-1]) + 1, wider, span):
            batches[-1].append(row)
            width, kept = wider, span
        else:
            batches.append([row])
            width, kept = len(sequence.ids), sequence.targets[-1] - sequence.targets[0] + 1
    return [batch_of(rows, sequences, share=share) for rows in batches]


def batch_of(rows: Sequence[int], sequences: Sequence[Scored], *, share: bool) -> Batch:
    """A batch with the longest beginning that can be shared.

    The token before the first predicted one is never in it: its logits are wanted of each row.
    """
    found = [sequences[row] for row in rows]
    shared = 0
    if share and len(found) > 1:
        before = min(sequence.targets[0] for sequence in found) - 1
        shared = min(common(sequence.ids for sequence in found), before)
    return Batch(
        rows=tuple(rows),
        shared=shared if shared >= LEAST_SHARED else 0,
        width=max(len(sequence.ids) for sequence in found),
    )


def common(sequences: Iterable[tuple[int, ...]]) -> int:
    """Tokens that all sequences begin with."""
    found = list(sequences)
    # what the first and the last in order share, all between them share too
    pairs = zip(min(found), max(found), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
