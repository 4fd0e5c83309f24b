"""Score a Hugging Face folder on lm-eval tasks; runs in a process of its own (see __main__)."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from entrypoint.errors import SettingsError
from entrypoint.evaluation.request import TASK_FOLDER, Evaluation, Request
from entrypoint.files import write_json
from entrypoint.models.card import TORCH_DTYPE, is_quantized

EVALUATION_VERSION = 1


def task_manager(tasks: Collection[str], include: Path | None) -> TaskManager:
    """A manager that knows `tasks`, of ours, of the folder `include`, or of lm-eval.

    Raises:
        SettingsError: a task that nobody knows.
    """
    own = [str(TASK_FOLDER), *([str(include)] if include else [])]
    # indexing lm-eval's thousands of files takes seconds: only when a task is not ours
    manager = TaskManager(include_path=own, include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=own)
    if unknown := sorted(set(tasks) - set(manager.all_tasks)):
        raise SettingsError(
            f"no task is called {', '.join(unknown)}",
            where="--tasks or TRAIN_TASKS",
            hint="lm-eval's own list is printed by `lm-eval ls tasks`",
        )
    return manager


def evaluate(request: Request) -> None:
    """Score the checkpoint and write results and per-sample records to the request's output.

    The model's chat template is applied. A checkpoint that says in its config.json how it was
    quantized is computed as it says; others in the request's dtype.

    Raises:
        SettingsError: a task that nobody knows.
    """
    manager = task_manager(request.tasks, request.include)
    model = HFLM(
        pretrained=str(request.checkpoint),
        dtype="auto" if is_quantized(request.checkpoint) else TORCH_DTYPE[request.dtype],
        device=request.device,
        batch_size=request.batch_size,
    )
    raw = simple_evaluate(
        model,
        tasks=list(request.tasks),
        task_manager=manager,
        limit=request.limit,
        apply_chat_template=True,
        log_samples=True,
    )
    assert raw is not None  # None is for other ranks than 0
    evaluation = Evaluation(
        label=request.label,
        checkpoint=request.checkpoint,
        scores=flatten(raw["results"]),
        rows={task: counts["effective"] for task, counts in raw["n-samples"].items()},
    )
    write_json(request.output, record(evaluation, raw))


def flatten(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """lm-eval's `{task: {"metric,filter": value}}` as `{"task/metric": value}`.

    Standard errors and names are left out; a filter other than `none` is kept in the name.
    """
    scores = {}
    for task, metrics in results.items():
        for key, value in metrics.items():
            metric, _, filter_name = key.partition(",")
            if filter_name and not metric.endswith("_stderr") and isinstance(value, (int, float)):
                suffix = "" if filter_name == "none" else f"@{filter_name}"
                scores[f"{task}/{metric}{suffix}"] = float(value)
    return scores


def record(evaluation: Evaluation, raw: dict[str, Any]) -> dict[str, Any]:
    """The evaluation as JSON: scores, the harness's own results, every sample's answer."""
    return {
        "version": EVALUATION_VERSION,
        "label": evaluation.label,
        "checkpoint": str(evaluation.checkpoint),
        "scores": evaluation.scores,
        "rows": evaluation.rows,
        "lm_eval": {"version": raw.get("lm_eval_version"), "results": _plain(raw["results"])},
        "samples": {
            task: [
                {
                    "doc_id": sample["doc_id"],
                    "prompt": _plain(sample["arguments"]),
                    "target": _plain(sample["target"]),
                    "answer": _plain(sample["filtered_resps"]),
                    "scores": {name: _plain(sample[name]) for name in sample["metrics"]},
                }
                for sample in samples
            ]
            for task, samples in raw["samples"].items()
        },
    }


def _plain(value: Any) -> Any:
    """Only what JSON knows: numpy's numbers and the harness's tuples come out as plain values."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    return (
        value.item()
        if hasattr(value, "item")
        else value
        if isinstance(value, (int, float))
        else str(value)
    )
