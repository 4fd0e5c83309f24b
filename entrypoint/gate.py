"""Conditions on scores that a model has to meet: `exact_match>=base-0.01`. Pure."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from entrypoint.errors import ExitCode, SettingsError, TrainError

WHERE = "--gate or TRAIN_GATE"
HINT = (
    "write METRIC or TASK/METRIC, one of >= <= > <, and a number or a label with an offset, as in "
    "exact_match>=base-0.01 or rows/loss<=1.5"
)
NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+"
CONDITION = re.compile(r"(?P<metric>[^<>=\s]+)\s*(?P<sign>>=|<=|>|<)\s*(?P<bound>[^<>=]+)")
OFFSET = re.compile(rf"(?P<label>.*?\S)\s*(?P<offset>[+-]\s*(?:{NUMBER}))")
COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


class GateError(TrainError):
    """A model does not meet a condition."""

    exit_code = ExitCode.GATE


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One condition, on every model but the first and the one that it names."""

    text: str
    metric: str
    """`metric`, of every task that has it, or `task/metric`."""
    sign: str
    bound: str
    """A number, a label, or a label with an offset, as it was written."""

    def matches(self, score: str) -> bool:
        """Whether it is about this `task/metric`."""
        return self.metric in (score, score.rpartition("/")[2])

    def reference(self, labels: Sequence[str]) -> tuple[str | None, float]:
        """The label that the bound names, or None, and what is added to it.

        Raises:
            SettingsError: it is no number and names no label.
        """
        if self.bound in labels:
            return self.bound, 0.0
        if (number := _number(self.bound)) is not None:
            return None, number
        found = OFFSET.fullmatch(self.bound)
        if found and found["label"] in labels:
            return found["label"], float(found["offset"].replace(" ", ""))
        raise SettingsError(
            f"{self.text}: {found['label'] if found else self.bound} is neither a number nor a "
            f"model; the models are {', '.join(labels)}",
            where=WHERE,
            hint=HINT,
        )

    def applies_to(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The models that have to meet it.

        Raises:
            SettingsError: there is none, or the bound names no model.
        """
        named, _ = self.reference(labels)
        found = tuple(label for label in labels[1:] if label != named)
        if not found:
            raise SettingsError(
                f"{self.text}: of {', '.join(labels)} no model is left to meet it",
                where=WHERE,
                hint="it has to be met by every model but the first and the one that it names",
            )
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether one model meets a condition in one score."""

    gate: str
    label: str
    score: str
    value: float
    bound: float
    holds: bool

    @property
    def missing(self) -> float:
        """By how much it fails; 0 where it holds."""
        return 0.0 if self.holds else abs(self.value - self.bound)

    def __str__(self) -> str:
        said = f"{self.gate}: {self.score} of {self.label} is {self.value:.4g}"
        if self.holds:
            return f"{said}, as wanted (bound {self.bound:.4g})"
        return f"{said}, {self.missing:.4g} off the bound {self.bound:.4g}"


def parse(text: str) -> Gate:
    """A condition from its text.

    Raises:
        SettingsError: it is not written as one.
    """
    found = CONDITION.fullmatch(text.strip())
    bound = found["bound"].strip() if found else ""
    offset = OFFSET.fullmatch(bound)
    if (
        not found
        or not bound
        or (_number(bound) is None and offset and _number(offset["label"]) is not None)
    ):
        raise SettingsError(f"{text!r} is no condition", where=WHERE, hint=HINT)
    return Gate(text=text.strip(), metric=found["metric"], sign=found["sign"], bound=bound)


def judge(gates: Sequence[Gate], scores: Mapping[str, Mapping[str, float]]) -> list[Verdict]:
    """Every condition on every model that has to meet it.

    Args:
        scores: label -> `task/metric` -> value; the first label is the base.

    Raises:
        SettingsError: a metric that was not computed, of the model or of the one that the bound
            names, or a label that is none.
    """
    verdicts = []
    labels = list(scores)
    for gate in gates:
        named, offset = gate.reference(labels)
        for label in gate.applies_to(labels):
            matching = [score for score in scores[label] if gate.matches(score)]
            check_metric(gate, matching, scores[label])
            for score in matching:
                if named and score not in scores[named]:
                    raise SettingsError(
                        f"{gate.text}: {named} has no score {score}",
                        where=WHERE,
                        hint=f"its scores are {', '.join(scores[named])}",
                    )
                bound = offset + (scores[named][score] if named else 0.0)
                value = scores[label][score]
                holds = COMPARE[gate.sign](value, bound)
                verdicts.append(
                    Verdict(
                        gate=gate.text, label=label, score=score, value=value, bound=bound,
                        holds=holds,
                    )
                )  # fmt: skip
    return verdicts


def check_metric(
    gate: Gate, matching: Sequence[str], known: Sequence[str] | Mapping[str, float]
) -> None:
    """Refuse a condition on what is not computed.

    Raises:
        SettingsError: names what is.
    """
    if not matching:
        raise SettingsError(
            f"{gate.text}: there is no score {gate.metric}",
            where=WHERE,
            hint=f"the scores are {', '.join(known)}",
        )


def enforce(verdicts: Sequence[Verdict], where: object) -> None:
    """End when a condition is not met.

    Raises:
        GateError: says which, and by how much.
    """
    failed = [str(verdict) for verdict in verdicts if not verdict.holds]
    if failed:
        raise GateError(
            "\n".join((f"{len(failed)} of {len(verdicts)} conditions failed", *failed)), where=where
        )


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(rf"[+-]?(?:{NUMBER})", text) else None
