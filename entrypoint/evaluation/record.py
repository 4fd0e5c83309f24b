"""The files of an evaluation: our own, and those that lm-eval's tools read."""

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.loggers import EvaluationTracker

from entrypoint.evaluation.request import LM_EVAL_FOLDER, Metric, Request
from entrypoint.files import share, write_json

EVALUATION_VERSION = 2
KEPT = ("config", "n-shot", "versions", "task_hashes")
"""Of lm-eval's own results, what our record repeats."""


def write(
    request: Request,
    raw: dict[str, Any],
    metrics: Mapping[str, Metric],
    performance: Mapping[str, Any],
    chat_template: str | None,
) -> None:
    """Write `output`, and beside it lm-eval's files in `lm_eval/<label>/`.

    Args:
        raw: what `simple_evaluate` has returned.
    """
    samples = raw.pop("samples")
    for found in samples.values():
        # several processes have each their own
        found.sort(key=lambda sample: (sample["doc_id"], sample["filter"]))
    ours = record(request, raw, samples, metrics, performance, chat_template)
    write_lm_eval(request, raw, samples, chat_template)
    write_json(request.output, ours)


def write_lm_eval(
    request: Request,
    raw: dict[str, Any],
    samples: Mapping[str, list[dict[str, Any]]],
    chat_template: str | None,
) -> None:
    """What `lm_eval --output_path --log_samples` writes, by its own code, into a folder that has
    the files whole: `results_<time>.json` and `samples_<task>_<time>.jsonl`."""
    target = request.output.parent / LM_EVAL_FOLDER / request.label
    target.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".lm_eval-", dir=request.output.parent))
    try:
        tracker = EvaluationTracker(output_path=str(scratch))
        said = tracker.general_config_tracker
        said.log_experiment_args(
            model_source="hf",
            model_args=raw["config"]["model_args"],
            system_instruction=None,
            chat_template=chat_template,
            fewshot_as_multiturn=chat_template is not None,
        )
        said.start_time -= performance_seconds(raw)
        said.model_name_sanitized = request.label
        # what it cannot write it only logs
        tracker.save_results_aggregated(results=raw, samples=dict(samples))
        for task, found in samples.items():
            tracker.save_results_samples(task_name=task, samples=found)
        written = sorted((scratch / request.label).iterdir())
        if len(written) != len(samples) + 1:
            raise RuntimeError(f"lm-eval wrote only {[path.name for path in written]}")
        share(scratch / request.label)
        for path in written:
            path.rename(target / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def performance_seconds(raw: Mapping[str, Any]) -> float:
    """Seconds since lm-eval's start, which it notes as a time of day."""
    import time

    return max(time.time() - float(raw["date"]), 0.0)


def record(
    request: Request,
    raw: Mapping[str, Any],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    metrics: Mapping[str, Metric],
    performance: Mapping[str, Any],
    chat_template: str | None,
) -> dict[str, Any]:
    """The evaluation as JSON: scores, how they come about, every sample's answer."""
    model = {
        "checkpoint": str(request.checkpoint),
        "adapter": str(request.adapter) if request.adapter else None,
        "dtype": request.dtype,
        "parameters": raw["config"].get("model_num_parameters"),
        "weights_bytes": weights_bytes(request.checkpoint, request.adapter),
    }
    asked = {
        "tasks": [*request.tasks, *([request.rows.name] if request.rows else [])],
        "data": str(request.rows.path) if request.rows else None,
        "limit": request.limit,
        "fewshot": request.fewshot,
        "chat_template": chat_template is not None,
        "max_new_tokens": request.max_new_tokens,
        "stop": list(request.stop),
        "batch_size": request.batch_size or "auto",
    }
    scores = flatten(raw["results"])
    return {
        "version": EVALUATION_VERSION,
        "label": request.label,
        "model": model,
        "asked": asked,
        "scores": scores,
        "stderr": flatten(raw["results"], errors=True),
        "metrics": {
            name: {"aggregation": metric.aggregation, "higher_is_better": metric.higher_is_better}
            for name, metric in metrics.items()
        },
        "rows": {task: counts["effective"] for task, counts in raw["n-samples"].items()},
        "performance": dict(performance),
        "lm_eval": {"version": raw.get("lm_eval_version"), "results": plain(raw["results"])},
        "samples": {task: list(by_document(found)) for task, found in samples.items()},
    }


def flatten(results: Mapping[str, Mapping[str, Any]], *, errors: bool = False) -> dict[str, float]:
    """lm-eval's `{task: {"metric,filter": value}}` as `{"task/metric": value}`.

    Args:
        errors: standard errors instead of values.

    Names are left out; a filter other than `none` is kept in the name.
    """
    scores = {}
    for task, metrics in results.items():
        for key, value in metrics.items():
            metric, _, filter_name = key.partition(",")
            is_error = metric.endswith("_stderr")
            if not filter_name or is_error is not errors or not isinstance(value, (int, float)):
                continue
            suffix = "" if filter_name == "none" else f"@{filter_name}"
            scores[f"{task}/{metric.removesuffix('_stderr')}{suffix}"] = float(value)
    return scores


def by_document(samples: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """One record for each document, with the scores of all filters."""
    found: dict[int, dict[str, Any]] = {}
    for sample in samples:
        suffix = "" if sample["filter"] == "none" else f"@{sample['filter']}"
        one = found.setdefault(
            sample["doc_id"],
            {
                "doc_id": sample["doc_id"],
                "doc_hash": sample["doc_hash"],
                "prompt": prompt(sample),
                "target": target(sample),
                "answer": answer(sample),
                "scores": {},
            },
        )
        one["scores"] |= {f"{name}{suffix}": plain(sample[name]) for name in sample["metrics"]}
    return found.values()


def is_choice(sample: Mapping[str, Any]) -> bool:
    """Whether several continuations were scored, of which the likeliest is the answer."""
    responses = sample["filtered_resps"]
    return len(responses) > 1 and all(
        isinstance(response, (list, tuple)) and len(response) == 2 for response in responses
    )


def prompt(sample: Mapping[str, Any]) -> str:
    """What the model was given; of several requests, that of the last: the one it answers."""
    arguments = sample["arguments"]
    return str(arguments[0 if is_choice(sample) else -1][0])


def target(sample: Mapping[str, Any]) -> str:
    """The expected answer; of choices, its text."""
    expected = sample["target"]
    if is_choice(sample) and isinstance(expected, int) and expected < len(sample["arguments"]):
        return str(sample["arguments"][expected][1]).strip()
    return str(expected)


def answer(sample: Mapping[str, Any]) -> str | None:
    """What the model said; of choices, the likeliest; None where only likelihoods are asked for."""
    responses = sample["filtered_resps"]
    if is_choice(sample):
        best = max(range(len(responses)), key=lambda index: float(responses[index][0]))
        return str(sample["arguments"][best][1]).strip()
    return responses[-1] if isinstance(responses[-1], str) else None


def weights_bytes(checkpoint: Path, adapter: Path | None = None) -> int:
    """Size of the weight files, an adapter's included."""
    folders = (checkpoint, *([adapter] if adapter else []))
    return sum(
        path.stat().st_size
        for folder in folders
        for pattern in ("*.safetensors", "pytorch_model*.bin")
        for path in folder.glob(pattern)
    )


def plain(value: Any) -> Any:
    """Only what JSON knows: numpy's numbers and the harness's tuples come out as plain values."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    return (
        value.item()
        if hasattr(value, "item")
        else value
        if isinstance(value, (int, float))
        else str(value)
    )
