"""From a run's facts to the page. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.filesize import decimal

from entrypoint.comparison.paired import Change, Comparison, Difference
from entrypoint.comparison.table import HEADLINES, headline, is_share, p_value, shown, signed
from entrypoint.report import charts, replay
from entrypoint.report.facts import Facts
from entrypoint.units import duration

TEMPLATE = "page.html.j2"


def render(facts: Facts) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("entrypoint.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": decimal, "number": number, "when": when}
    return environment.get_template(TEMPLATE).render(**variables(facts))


def variables(facts: Facts) -> dict[str, Any]:
    """What the template is filled with."""
    manifest, comparison = facts.manifest, facts.comparison
    settings = manifest["settings"]
    quantized = (facts.result or {}).get("artifacts", {}).get("quantized", {})
    return {
        "facts": facts,
        "manifest": manifest,
        "settings": settings,
        "cards": cards(facts),
        "curves": charts.curves(facts.metrics),
        "labels": [one.label for one in comparison.evaluations] if comparison else [],
        "evaluations": comparison.evaluations if comparison else (),
        "pairs": pairs(comparison) if comparison else [],
        "scores": score_rows(comparison) if comparison else [],
        "forest": forest(comparison) if comparison else [],
        "trade_off": trade_off(comparison, list(quantized)) if comparison else [],
        "changes": changes(comparison) if comparison else [],
        "lengths": lengths(facts.dataset),
        "replay": replay.command(settings, manifest["seed"]),
        "replayed_outputs": settings.get("output"),
    }


def cards(facts: Facts) -> list[tuple[str, str, str]]:
    """The figures that the page opens with: what, how much, and a remark."""
    found = []
    if facts.comparison and (opening := opening_score(facts.comparison)):
        base, tuned = facts.comparison.evaluations[:2]
        found.append(
            (
                f"{opening.partition('/')[2]}, {tuned.label}",
                shown(opening, tuned.scores[opening]),
                f"{base.label}: {shown(opening, base.scores[opening])}",
            )
        )
    if facts.metrics:
        first, last = facts.metrics[0], facts.metrics[-1]
        found.append(("training loss", f"{last['loss']:.3f}", f"at first {first['loss']:.3f}"))
        seconds = sum(one.get("step_seconds", 0.0) for one in facts.metrics)
        found.append(
            ("steps", f"{last['step']:,}", f"{duration(seconds)} of training" if seconds else "")
        )
        speeds = [one["tokens_per_second"] for one in facts.metrics if "tokens_per_second" in one]
        if speeds:
            median = sorted(speeds)[len(speeds) // 2]
            found.append(("tokens per second", number(median), "median of the steps"))
        peaks = [one["peak_memory_bytes"] for one in facts.metrics if "peak_memory_bytes" in one]
        if peaks:
            found.append(("peak memory", decimal(max(peaks)), "of training"))
    return found


def opening_score(comparison: Comparison) -> str | None:
    """The score that says most of the first two models, of those that both have: answers are not
    asked for in every evaluation."""
    base, tuned = comparison.evaluations[:2]
    return headline(score for score in base.scores if score in tuned.scores)


def pairs(comparison: Comparison) -> list[tuple[str, str]]:
    return list(dict.fromkeys((one.label, one.against) for one in comparison.differences))


def score_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One for each score: every model's value, and every pair's difference."""
    by_score: dict[str, dict[tuple[str, str], Difference]] = {}
    for one in comparison.differences:
        by_score.setdefault(one.score, {})[one.label, one.against] = one
    return [
        {
            "score": score,
            "values": [
                shown(score, one.scores[score]) if score in one.scores else "n/a"
                for one in comparison.evaluations
            ],
            "differences": [
                said(found[pair]) if pair in found else None for pair in pairs(comparison)
            ],
        }
        for score, found in by_score.items()
    ]


def said(found: Difference) -> dict[str, str]:
    """A difference in the parts that the page shows."""
    unit = " pt" if is_share(found.score) else ""
    bounds = ""
    if found.low is not None and found.high is not None:
        low, high = (signed(found.score, value) for value in (found.low, found.high))
        bounds = f"{low} to {high}"
    test = ""
    if found.p_value is not None:
        said_p = p_value(found.p_value)
        said_p = said_p if said_p.startswith("<") else f"= {said_p}"
        test = f"p {said_p}, won {found.won:,}, lost {found.lost:,}"
    return {
        "value": f"{signed(found.score, found.difference)}{unit}",
        "bounds": bounds,
        "test": test,
        "verdict": found.verdict,
    }


def forest(comparison: Comparison) -> list[charts.Chart]:
    """For each pair, the differences of scores between 0 and 1, which fit one axis."""
    drawn = []
    for place, (label, against) in enumerate(pairs(comparison)):
        bars = [
            charts.Bar(
                name=one.score.partition("/")[2], value=100 * one.difference,
                low=100 * one.low, high=100 * one.high, verdict=one.verdict,
            )
            for one in comparison.differences
            if (one.label, one.against) == (label, against)
            and one.low is not None and one.high is not None
            and (is_share(one.score) or "rouge" in one.score)
        ]  # fmt: skip
        if bars:
            title = f"{label} - {against}, 95 % intervals"
            drawn.append(charts.differences(f"pair{place}", title, bars, "percentage points"))
    return drawn


def trade_off(comparison: Comparison, quantized: Sequence[str]) -> list[charts.Chart]:
    """Accuracy against size and speed, when quantized copies were scored."""
    score = opening_score(comparison)
    scored = [one for one in comparison.evaluations if score in one.scores]
    if score is None or not {one.label for one in scored} & set(quantized):
        return []
    points = [
        charts.Point(
            label=one.label, score=one.scores[score], bytes=one.weights_bytes,
            tokens_per_second=one.performance.get("generated_tokens_per_second"),
        )
        for one in scored
    ]  # fmt: skip
    return charts.trade_off(points, score.partition("/")[2], percent=is_share(score))


def changes(comparison: Comparison) -> list[dict[str, Any]]:
    """The samples that changed most, grouped by task, pair and direction."""
    groups: dict[tuple[str, str, str, str], list[Change]] = {}
    for one in comparison.changes:
        groups.setdefault((one.task, one.label, one.against, one.direction), []).append(one)
    return [
        {"task": task, "label": label, "against": against, "direction": direction,
         "samples": [{"change": one, "answers": answers(one)} for one in found]}
        for (task, label, against, direction), found in groups.items()
    ]  # fmt: skip


def answers(change: Change) -> list[dict[str, Any]]:
    """Every model's answer, and whether it is right where that is known."""
    found = []
    for label, answer in change.answers.items():
        scores = change.scores[label]
        right = next((scores[name] for name in HEADLINES[:3] if name in scores), None)
        figures = [
            f"{name} {value[0] / value[1]:.3f}" if isinstance(value, (list, tuple))
            else f"{name} {value:.3g}"
            for name, value in scores.items()
            if name != "perplexity"
            and (not isinstance(value, (list, tuple)) or (len(value) == 2 and value[1]))
        ]  # fmt: skip
        found.append(
            {
                "label": label,
                "text": answer,
                "right": None if right not in (0, 1) else bool(right),
                "figures": ", ".join(figures),
            }
        )
    return found


def lengths(dataset: Mapping[str, Any] | None) -> charts.Chart | None:
    histogram = (dataset or {}).get("tokens", {}).get("histogram")
    return charts.lengths(histogram) if histogram else None


def number(value: Any) -> str:
    """1,234 and 0.00123: enough digits to tell, not more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def when(text: str) -> str:
    """A time of the manifest, to read."""
    return f"{datetime.fromisoformat(text):%d %B %Y, %H:%M} UTC"
