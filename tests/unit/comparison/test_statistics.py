"""entrypoint.comparison.statistics against known answers."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from entrypoint.comparison.statistics import interval, mcnemar
from entrypoint.evaluation.metrics import bleu_parts


def test_the_interval_is_scipys_paired_bootstrap():
    generator = np.random.default_rng(1)
    before = generator.normal(size=200)
    after = before + generator.normal(0.2, 0.5, size=200)
    found = interval("mean", before.tolist(), after.tolist())
    reference = bootstrap(
        (before, after),
        lambda first, second, axis: second.mean(axis) - first.mean(axis),
        paired=True, method="percentile", n_resamples=5000, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert found == pytest.approx((reference.low, reference.high), abs=0.01)
    assert found == interval("mean", before.tolist(), after.tolist())


def test_pairs_matter():
    """A small gain on every sample is certain, however far the samples lie apart."""
    before = [float(value) for value in range(100)]
    low, high = interval("mean", before, [value + 0.5 for value in before]) or (0, 0)
    assert (low, high) == pytest.approx((0.5, 0.5))


def test_the_interval_of_a_mean_over_tokens():
    before = [(2.0, 1), (2.0, 1), (40.0, 10)]
    assert interval("ratio", before, [(total / 2, count) for total, count in before]) is not None
    low, high = interval("ratio", [(1.0, 1)] * 4, [(3.0, 1)] * 4) or (0, 0)
    assert (low, high) == (2.0, 2.0)


def test_the_interval_of_corpus_bleu():
    target = "the cat sat on the mat today"
    right, wrong = bleu_parts(target, target), bleu_parts(target, "a dog ran far away from us")
    low, high = interval("corpus_bleu", [wrong] * 20, [right] * 15 + [wrong] * 5) or (0, 0)
    assert 30 < low < high <= 100


def test_what_is_not_a_sum_over_samples_has_no_interval():
    assert interval("f1", [1.0], [0.0]) is None
    assert interval("mean", ["a"], ["b"]) is None
    assert interval("mean", [], []) is None


@pytest.mark.parametrize(
    ("lost", "won", "p_value"), [(0, 0, 1.0), (0, 6, 2 / 64), (1, 9, 22 / 1024), (5, 5, 1.0)]
)
def test_p_values_are_those_of_mcnemars_exact_test(lost: int, won: int, p_value: float):
    before = [1.0] * lost + [0.0] * won + [1.0, 0.0]
    after = [0.0] * lost + [1.0] * won + [1.0, 0.0]
    found = mcnemar(before, after)
    assert found is not None
    assert (found.lost, found.won) == (lost, won)
    assert found.p_value == pytest.approx(p_value)


def test_mcnemar_is_for_right_and_wrong_only():
    assert mcnemar([0.5, 1.0], [1.0, 1.0]) is None
    assert mcnemar([(1.0, 2)], [(1.0, 2)]) is None
