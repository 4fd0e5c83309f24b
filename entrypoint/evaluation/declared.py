"""Which scores tasks of lm-eval will have, from their files alone. Imports lm-eval."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY
from lm_eval.tasks._index import Kind

from entrypoint.evaluation.harness import task_manager

NO_FILTER = ({"name": "none"},)


class NotDeclared(Exception):
    """A task is written in Python, and knows its scores when it runs."""


def declared_scores(tasks: Sequence[str], include: Path | None) -> list[str] | None:
    """`task/metric` of all scores; None where a task's file does not say.

    Raises:
        SettingsError: a task that nobody knows.
    """
    index = task_manager(tuple(tasks), include).task_index
    try:
        return [score for name in tasks for score in _scores(name, index)]
    except NotDeclared:
        return None


def _scores(name: Any, index: Mapping[str, Any]) -> Iterator[str]:
    entry = index.get(name) if isinstance(name, str) else None
    if entry is None:
        raise NotDeclared
    config = entry.cfg or {}
    match entry.kind:
        case Kind.TASK:
            listed = config.get("metric_list")
            default = DEFAULT_METRIC_REGISTRY.get(config.get("output_type"), ())
            filters = config.get("filter_list") or NO_FILTER
            for metric in [one["metric"] for one in listed] if listed else default:
                if not isinstance(metric, str):
                    raise NotDeclared
                for one in filters:
                    suffix = "" if one["name"] == "none" else f"@{one['name']}"
                    yield f"{name}/{metric}{suffix}"
        case Kind.TAG:
            for task in sorted(entry.tags):
                yield from _scores(task, index)
        case Kind.GROUP if not config.get("aggregate_metric_list"):
            for task in config["task"]:
                yield from _scores(task, index)
        case _:
            raise NotDeclared
