"""Several evaluations on the same samples, pair by pair. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from entrypoint.comparison.statistics import CONFIDENCE, RESAMPLES, SEED, interval, mcnemar
from entrypoint.errors import DataError
from entrypoint.evaluation.request import ROUGE, Evaluation, Metric
from entrypoint.gate import Verdict

COMPARISON_VERSION = 1
CHANGED = 5
"""Samples that are shown of each task, pair and direction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One score of a model against that of another."""

    label: str
    against: str
    score: str
    """`task/metric`."""
    rows: int
    before: float
    after: float
    low: float | None
    """Of the interval of `after - before`; None where there is none."""
    high: float | None
    p_value: float | None
    """Of McNemar's exact test; None where samples are not right or wrong."""
    won: int | None
    """Samples that only `label` got right."""
    lost: int | None
    """Samples that only `against` got right."""
    higher_is_better: bool

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """better or worse where the interval leaves no doubt, else unclear."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "unclear"
        return "better" if (self.low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A sample that two models answered differently."""

    task: str
    label: str
    against: str
    doc_id: int
    direction: str
    """better or worse."""
    prompt: str
    target: str
    answers: Mapping[str, str | None]
    """Of all models."""
    scores: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All of it."""

    evaluations: tuple[Evaluation, ...]
    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Compare each evaluation with the first one, and the third and later ones with the second:
    quantized copies with what they were made from.

    Raises:
        DataError: the samples are not the same.
    """
    first, *others = evaluations
    for other in others:
        check_same(first, other)
    differences: list[Difference] = []
    changes: list[Change] = []
    for index, other in enumerate(others):
        for against in (first, others[0]) if index else (first,):
            differences += differences_of(against, other)
        changes += changes_of(others[0] if index else first, other, evaluations)
    return Comparison(
        evaluations=tuple(evaluations), differences=tuple(differences), changes=tuple(changes)
    )


def check_same(first: Evaluation, other: Evaluation) -> None:
    """Refuse to compare what was not asked the same.

    Raises:
        DataError: names task and samples.
    """
    if first.samples.keys() != other.samples.keys():
        raise DataError(
            f"{first.label} was scored on {', '.join(first.samples)}, "
            f"{other.label} on {', '.join(other.samples)}",
            hint="score both with the same --tasks and --data",
        )
    for task, samples in first.samples.items():
        pairs = samples, other.samples[task]
        if len(pairs[0]) != len(pairs[1]):
            raise DataError(
                f"{task}: {first.label} has {len(pairs[0])} samples and {other.label} "
                f"{len(pairs[1])}",
                hint="score both with the same --limit",
            )
        for mine, theirs in zip(*pairs, strict=True):
            if (mine["doc_id"], mine["doc_hash"]) != (theirs["doc_id"], theirs["doc_hash"]):
                raise DataError(
                    f"{task}: sample {mine['doc_id']} of {first.label} is not the one of "
                    f"{other.label}",
                    hint="score both on the same data",
                )


def differences_of(against: Evaluation, other: Evaluation) -> list[Difference]:
    """Every score of `other` against that of `against`."""
    found = []
    for score, after in other.scores.items():
        if score not in against.scores:
            continue
        task, metric = score.rsplit("/", 1)
        said = metric_of(other, score)
        before_values, after_values = values(against, other, task, metric)
        bounds = interval(said.aggregation, before_values, after_values)
        # ROUGE of short answers may be 0 or 1 only and is no right or wrong all the same
        is_test = before_values and said.aggregation == "mean" and metric not in ROUGE
        test = mcnemar(before_values, after_values) if is_test else None
        found.append(
            Difference(
                label=other.label,
                against=against.label,
                score=score,
                rows=len(before_values) or other.rows.get(task, 0),
                before=against.scores[score],
                after=after,
                low=bounds[0] if bounds else None,
                high=bounds[1] if bounds else None,
                p_value=test.p_value if test else None,
                won=test.won if test else None,
                lost=test.lost if test else None,
                higher_is_better=said.higher_is_better,
            )
        )
    return found


def metric_of(evaluation: Evaluation, score: str) -> Metric:
    """How a score comes about, whatever its filter; a group of tasks is a mean of theirs, of which
    no samples are known."""
    return evaluation.metrics.get(score.partition("@")[0], Metric(aggregation="group"))


def values(
    first: Evaluation, other: Evaluation, task: str, metric: str
) -> tuple[list[Any], list[Any]]:
    """The values of the samples that both have."""
    both = [
        (mine["scores"][metric], theirs["scores"][metric])
        for mine, theirs in zip(
            first.samples.get(task, ()), other.samples.get(task, ()), strict=True
        )
        if metric in mine["scores"] and metric in theirs["scores"]
    ]
    return [one for one, _ in both], [one for _, one in both]


def changes_of(
    against: Evaluation, other: Evaluation, evaluations: Sequence[Evaluation]
) -> list[Change]:
    """The samples of each task that changed most, for better and for worse.

    Samples are ordered by their first metric, those equal in it by the next.
    """
    changes = []
    for task, samples in other.samples.items():
        metrics = [
            (score.rsplit("/", 1)[1], 1 if metric_of(other, score).higher_is_better else -1)
            for score in other.scores
            if score.rsplit("/", 1)[0] == task
        ]

        def gain(
            index: int, task: str = task, metrics: Sequence[tuple[str, int]] = tuple(metrics)
        ) -> tuple[float, ...]:
            after = other.samples[task][index]["scores"]
            before = against.samples[task][index]["scores"]
            return tuple(
                sign * (scalar(after[name]) - scalar(before[name]))
                for name, sign in metrics
                if name in after and name in before
            )

        gains = {index: gain(index) for index in range(len(samples))}
        order = sorted(gains, key=lambda index: gains[index], reverse=True)
        better = [index for index in order if gains[index] > (0.0,) * len(gains[index])]
        worse = [index for index in reversed(order) if gains[index] < (0.0,) * len(gains[index])]
        for direction, chosen in (("better", better), ("worse", worse)):
            for index in chosen[:CHANGED]:
                every = {one.label: one.samples[task][index] for one in evaluations}
                changes.append(
                    Change(
                        task=task,
                        label=other.label,
                        against=against.label,
                        doc_id=samples[index]["doc_id"],
                        direction=direction,
                        prompt=samples[index]["prompt"],
                        target=samples[index]["target"],
                        answers={label: sample["answer"] for label, sample in every.items()},
                        scores={label: sample["scores"] for label, sample in every.items()},
                    )
                )
    return changes


def scalar(value: Any) -> float:
    """A sample's value as one number: a sum and its tokens as their ratio; parts of BLEU as none,
    since ROUGE says the same of one sample."""
    if not isinstance(value, (list, tuple)):
        return float(value) if isinstance(value, (int, float)) else 0.0
    if len(value) != 2 or not value[1]:
        return 0.0
    return float(value[0]) / float(value[1])


def record(comparison: Comparison, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """As JSON."""
    first = comparison.evaluations[0]
    return {
        "version": COMPARISON_VERSION,
        "base": first.label,
        "rows": dict(first.rows),
        "models": {
            one.label: {
                "checkpoint": str(one.checkpoint),
                "adapter": str(one.adapter) if one.adapter else None,
                "weights_bytes": one.weights_bytes,
                "performance": dict(one.performance),
                "scores": dict(one.scores),
            }
            for one in comparison.evaluations
        },
        "bootstrap": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED},
        "differences": [
            asdict(one) | {"difference": one.difference, "verdict": one.verdict}
            for one in comparison.differences
        ],
        "changes": [asdict(one) for one in comparison.changes],
        "gates": [asdict(verdict) | {"missing": verdict.missing} for verdict in verdicts],
    }
