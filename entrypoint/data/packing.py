"""How many sequences whole rows fit into. Pure."""

from typing import Any

import numpy as np


def packs(counts: Any, size: int) -> int:
    """Sequences of `size` tokens that rows fit into, the longest first, each where it fits best.

    Args:
        counts: rows of each length, from 0; longer rows than `size` are cut to it.
    """
    counts = np.asarray(counts, np.int64)
    left = [int(count) for count in counts[: size + 1]] + [0] * max(size + 1 - len(counts), 0)
    left[size] += int(counts[size + 1 :].sum())
    space = [0] * (size + 1)
    opened = 0
    for length in range(size, 0, -1):
        count = left[length]
        room = length
        while count and room < size:
            placed = min(count, space[room])
            if placed:
                space[room] -= placed
                space[room - length] += placed
                count -= placed
            # what is left of a sequence may take another of this length
            room = length if placed and room - length >= length else room + 1
        each = size // length
        whole, rest = divmod(count, each)
        space[size - each * length] += whole
        opened += whole
        if rest:
            space[size - rest * length] += 1
            opened += 1
    return opened
