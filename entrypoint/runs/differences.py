"""How two runs differ: in what they were made from, and in what came out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PARTS = ("settings", "model", "teacher", "data", "recipe", "machine", "versions", "code")
"""What a run is made from, in the order that differences are told in."""
INPUTS = ("model", "teacher", "data", "recipe")
"""Parts without which no run can be the same."""
NOT_REPEATED = ("output", "resume", "dry_run", "fit_check", "explicit")
"""Settings that say where and how a run is started or asked for, not what it computes."""
PLACES = ("folder", "reference")
"""Of models and data: where they lie says nothing of what they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One value that two runs do not share."""

    part: str
    what: str
    first: Any
    second: Any


def parts_of(manifest: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a run is made from, as plain keys of each part.

    Args:
        recipe: the rendered one. Its paths are left out: hashes say what lies there.
    """
    settings = manifest["settings"]
    rendered = {
        key: value
        for key, value in flat(recipe).items()
        if not (isinstance(value, str) and value.startswith("/"))
    }
    return {
        "settings": {name: value for name, value in settings.items() if name not in NOT_REPEATED},
        "model": _content(manifest["model"]),
        "teacher": _content(manifest.get("teacher") or {}),
        "data": _content(manifest["data"]),
        "recipe": rendered,
        "machine": {
            "platform": manifest.get("platform"),
            "image": manifest.get("image"),
            **flat(manifest["world"]),
        },
        "versions": dict(manifest["versions"]),
        "code": {"git_revision": manifest.get("git_revision")},
    }


def _content(found: Mapping[str, Any]) -> dict[str, Any]:
    return flat({name: value for name, value in found.items() if name not in PLACES})


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            found |= flat(inner, f"{name}.")
        else:
            found[name] = inner
    return found


def differing(
    first: Mapping[str, Mapping[str, Any]],
    second: Mapping[str, Mapping[str, Any]],
    without: Sequence[str] = (),
) -> list[Difference]:
    """What two runs were not made from alike.

    A value that one of them does not record, as older versions did not, is not compared.

    Args:
        first, second: of `parts_of`.
        without: settings to pass over.
    """
    found = []
    for part in PARTS:
        left, right = first[part], second[part]
        recorded = part in ("settings", "recipe")
        for key in dict.fromkeys((*left, *right)):
            if part == "settings" and key in without:
                continue
            if not recorded and (key not in left or key not in right):
                continue
            if left.get(key) != right.get(key):
                found.append(
                    Difference(part=part, what=key, first=left.get(key), second=right.get(key))
                )
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Two runs' losses, step by step."""

    steps: int
    """That both have made."""
    largest: float
    """Largest difference of the losses of one step."""
    since: int | None
    """The first step whose losses are not the same number; None when all are."""


def losses(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> Losses | None:
    """Compare the losses of the steps that both have; None when there is no such step."""
    other = {one["step"]: one["loss"] for one in second}
    both = [(one["step"], one["loss"], other[one["step"]]) for one in first if one["step"] in other]
    if not both:
        return None
    apart = [(step, abs(left - right)) for step, left, right in both if left != right]
    return Losses(
        steps=len(both),
        largest=max((difference for _, difference in apart), default=0.0),
        since=apart[0][0] if apart else None,
    )


def outcome(
    result: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, float | int | None]:
    """The figures of a run that others are compared with, by name."""
    found: dict[str, float | int | None] = {"steps": metrics[-1]["step"] if metrics else 0}
    if metrics:
        found |= {"loss, first": metrics[0]["loss"], "loss, last": metrics[-1]["loss"]}
        validated = [one["validation_loss"] for one in metrics if "validation_loss" in one]
        if validated:
            found["validation loss, lowest"] = min(validated)
        found["seconds of training"] = round(
            sum(one.get("step_seconds", 0.0) for one in metrics), 1
        )
        speeds = sorted(one["tokens_per_second"] for one in metrics if "tokens_per_second" in one)
        if speeds:
            found["tokens/s, median"] = round(speeds[len(speeds) // 2], 1)
        peaks = [one["peak_memory_bytes"] for one in metrics if "peak_memory_bytes" in one]
        if peaks:
            found["peak memory, bytes"] = max(peaks)
    for label, scores in result.get("evaluation", {}).items():
        found |= {f"{score}, {label}": value for score, value in scores.items()}
    return found
