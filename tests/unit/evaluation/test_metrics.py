"""entrypoint.evaluation.metrics against the libraries that they come from."""

import math

import numpy as np
import pytest
import sacrebleu

from entrypoint.evaluation.metrics import AGGREGATIONS, aggregate, answer_scores, bleu_parts

PAIRS = [
    ("the cat sat on the mat", "the cat sat on a mat"),
    ("a long journey to the east", "a journey to the far east"),
    ("yes", "no"),
]


def test_bleu_of_summed_parts_is_sacrebleus_of_the_corpus():
    parts = [bleu_parts(target, answer) for target, answer in PAIRS]
    targets, answers = zip(*PAIRS, strict=True)
    expected = sacrebleu.corpus_bleu(list(answers), [list(targets)]).score
    assert aggregate("corpus_bleu", parts) == pytest.approx(expected)


def test_an_answer_counts_without_the_white_space_around_it():
    assert answer_scores(" Paris\n", "Paris")["exact_match"] == 1.0
    assert answer_scores("Paris", "paris")["exact_match"] == 0.0
    assert answer_scores("the cat sat", "the cat ran")["rouge1"] == pytest.approx(2 / 3)


def test_rouge_knows_letters_beyond_z():
    assert answer_scores("Привет, мир", "привет мир")["rougeL"] == 1.0


def test_losses_are_means_over_tokens_not_over_rows():
    values = [(10.0, 1), (2.0, 3)]
    assert aggregate("ratio", values) == 3.0
    assert aggregate("exp_ratio", values) == pytest.approx(math.exp(3.0))


def test_lm_evals_aggregations_are_lm_evals():
    from lm_eval.api.registry import get_aggregation

    weighted = [(-3.0, 2), (-5.0, 4)]
    for name, values in (
        ("mean", [1.0, 0.0, 1.0]),
        ("perplexity", [-1.0, -2.0]),
        ("weighted_perplexity", weighted),
        ("bits_per_byte", weighted),
    ):
        assert aggregate(name, values) == pytest.approx(get_aggregation(name)(values)), name


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_many_resampled_sets_are_aggregated_at_once(name: str):
    values = np.array([bleu_parts(*pair) for pair in PAIRS], np.float64)
    sums = np.stack([values.sum(0), values[[0, 0, 1]].sum(0)])
    found = AGGREGATIONS[name](sums, 3)
    assert found.shape == (2,)
    assert found[0] == pytest.approx(AGGREGATIONS[name](sums[0], 3))
