"""Metrics of an answer, and how the values of many samples come to one."""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from entrypoint.evaluation.request import ROUGE

Sums = Any
"""Sums of the samples' values: an array of shape [..., parts]."""
Aggregation = Callable[[Sums, Any], Any]


def _ratio(sums: Sums) -> Any:
    return sums[..., 0] / np.maximum(sums[..., 1], 1e-12)


def _bleu(sums: Sums, _: Any) -> Any:
    """Corpus BLEU in percent from sums of `bleu_parts`, as sacrebleu computes it."""
    from sacrebleu.metrics.bleu import BLEU

    def one(parts: Any) -> float:
        counts = [int(part) for part in parts]
        found = BLEU.compute_bleu(
            counts[:4], counts[4:8], counts[8], counts[9], smooth_method="exp"
        )
        return float(found.score)

    return np.apply_along_axis(one, -1, np.asarray(sums))


AGGREGATIONS: Mapping[str, Aggregation] = {
    "mean": lambda sums, count: sums[..., 0] / count,
    # loss, of tokens: a sample's value is (sum, tokens)
    "ratio": lambda sums, _: _ratio(sums),
    "exp_ratio": lambda sums, _: np.exp(_ratio(sums)),
    "corpus_bleu": _bleu,
    # lm-eval's: a sample's value is a log-likelihood, alone or with its words or bytes
    "perplexity": lambda sums, count: np.exp(-sums[..., 0] / count),
    "weighted_perplexity": lambda sums, _: np.exp(-_ratio(sums)),
    "bits_per_byte": lambda sums, _: -_ratio(sums) / math.log(2),
}
"""Name -> from the sums of the samples' values, and their number, to the metric. They are given
sums, so that a resampled set costs one matrix product."""


def parts(value: Any) -> list[float] | None:
    """A sample's value as the numbers that are summed; None when it is none."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values or not all(isinstance(item, (int, float)) for item in values):
        return None
    return [float(item) for item in values]


def aggregate(name: str, values: Sequence[Any]) -> float:
    """The metric of these samples' values."""
    found = np.array([parts(value) for value in values], np.float64)
    return float(AGGREGATIONS[name](found.sum(0), len(found)))


def answer_scores(target: str, answer: str) -> dict[str, Any]:
    """Exact match, ROUGE (F-measure, 0 to 1) and the parts of BLEU of one answer.

    White space around target and answer does not count.
    """
    target, answer = target.strip(), answer.strip()
    rouge = _rouge().score(target, answer)
    return {
        "exact_match": float(target == answer),
        **{name: rouge[name].fmeasure for name in ROUGE},
        "bleu": bleu_parts(target, answer),
    }


def bleu_parts(target: str, answer: str) -> list[int]:
    """What BLEU is made of, to be summed over samples: matching n-grams of lengths 1 to 4, all
    n-grams, words of the answer, words of the target."""
    from sacrebleu.metrics.bleu import BLEU

    # a single sentence has few n-grams, and scores are made of sums alone
    found = BLEU(effective_order=True).sentence_score(answer, [target])
    return [*found.counts, *found.totals, found.sys_len, found.ref_len]


class _Words:
    """rouge-score's own tokenizer knows the letters a to z only."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


@functools.cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(ROUGE, tokenizer=_Words())
