"""Which rows share a window, and what they begin with alike. Pure, for training and for plans."""

import bisect
from collections.abc import Sequence

LEAST_FILLED = 0.75
"""Length of the shortest row over the longest's, at least, of rows that attend side by side."""


def best_fit(lengths: Sequence[int], window: int) -> list[list[int]]:
    """Indices of rows for each window, in ascending order; rows longer than one are alone.

    Longest rows first, each into the window that it fills best: at most 11/9 of the fewest
    windows possible, and one more (Johnson 1973).
    """
    windows: list[list[int]] = []
    # (room left, window), ascending: the first with room enough is the best
    open_windows: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        found = bisect.bisect_left(open_windows, (lengths[index], -1))
        if found < len(open_windows):
            room, number = open_windows.pop(found)
            windows[number].append(index)
        else:
            room, number = max(window, lengths[index]), len(windows)
            windows.append([index])
        bisect.insort(open_windows, (room - lengths[index], number))
    return sorted(sorted(rows) for rows in windows)


def twins(rows: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
    """For each token of rows laid end to end, the first that has the same tokens before it; None
    when no rows begin alike."""
    found: list[int] = []
    known: dict[tuple[int, int], int] = {}
    for row in rows:
        before = -1
        for token in row:
            before = known.setdefault((before, token), len(found))
            found.append(before)
    return tuple(found) if len(known) < len(found) else None


def alike(lengths: Sequence[int], least_filled: float = LEAST_FILLED) -> list[list[int]]:
    """Indices of rows, longest first, in groups in which each is at least that share of the first
    one's length."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not groups or lengths[index] < least_filled * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(index)
    return groups
