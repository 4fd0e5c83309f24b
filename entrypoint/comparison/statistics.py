"""How certain a difference between two models is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from entrypoint.evaluation.metrics import AGGREGATIONS, parts

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 42
AT_ONCE = 4_000_000
"""Numbers drawn at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Test:
    """McNemar's test of two models that answered the same questions right or wrong."""

    lost: int
    """Right by the first one only."""
    won: int
    """Right by the second one only."""
    p_value: float


def interval(
    aggregation: str, before: Sequence[Any], after: Sequence[Any]
) -> tuple[float, float] | None:
    """Paired bootstrap interval of the difference in a metric.

    The same samples are drawn, with replacement, for both models, `RESAMPLES` times; the interval
    holds the middle `CONFIDENCE` of the differences.

    Args:
        aggregation: a name of entrypoint.evaluation.metrics.
        before: the first model's value of each sample.
        after: the second one's, in the same order.

    Returns:
        None where the metric is not known to be made of sums over samples.
    """
    first, second = _values(before), _values(after)
    if aggregation not in AGGREGATIONS or first is None or second is None:
        return None
    together = AGGREGATIONS[aggregation]
    count = len(first)
    generator = np.random.default_rng(SEED)
    differences = []
    step = max(AT_ONCE // count, 1)
    for start in range(0, RESAMPLES, step):
        drawn = generator.multinomial(
            count, np.full(count, 1 / count), size=min(step, RESAMPLES - start)
        ).astype(np.float64)
        differences.append(together(drawn @ second, count) - together(drawn @ first, count))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(differences), [tail, 100 - tail])
    return float(low), float(high)


def mcnemar(before: Sequence[Any], after: Sequence[Any]) -> Test | None:
    """The exact test; None where values are not all 0 or 1.

    Only samples that one model got right and the other wrong count: under no difference each is as
    likely one way as the other (Q. McNemar, 1947, doi:10.1007/BF02295996).
    """
    if not all(value in (0, 1) for value in (*before, *after)):
        return None
    pairs = list(zip(before, after, strict=True))
    lost = sum(first > second for first, second in pairs)
    won = sum(first < second for first, second in pairs)
    # scipy takes a second to import, which `train sft` would wait for
    from scipy.stats import binomtest

    p_value = binomtest(won, won + lost).pvalue if won + lost else 1.0
    return Test(lost=lost, won=won, p_value=float(p_value))


def _values(found: Sequence[Any]) -> Any:
    """Values as an array [samples, parts], or None."""
    numbers = [parts(value) for value in found]
    if not numbers or any(one is None or len(one) != len(numbers[0] or ()) for one in numbers):
        return None
    return np.array(numbers, np.float64)
