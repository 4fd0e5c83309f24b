"""Score a model on lm-eval tasks and rows; runs in a process of its own (see __main__)."""

import functools
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.registry import AGGREGATION_REGISTRY
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from entrypoint.data.chat import Chat
from entrypoint.errors import DataError, SettingsError
from entrypoint.evaluation.memory import peak_bytes
from entrypoint.evaluation.model import Model, Work
from entrypoint.evaluation.ranks import Ranks
from entrypoint.evaluation.record import write
from entrypoint.evaluation.request import TASK_FOLDER, Metric, Request
from entrypoint.evaluation.rows import RowTask
from entrypoint.models.card import TORCH_DTYPE, is_quantized

STDERR_SAMPLES = 1000
"""Resampled sets for the standard errors that lm-eval has no formula for."""


class Tasks(TaskManager):  # type: ignore[misc]
    """lm-eval's manager, which remembers what it has loaded."""

    def load(self, task_list: Any) -> Any:
        self.loaded = super().load(task_list)
        return self.loaded


@functools.cache
def task_manager(tasks: tuple[str, ...], include: Path | None) -> Tasks:
    """A manager that knows `tasks`, of ours, of the folder `include`, or of lm-eval.

    Raises:
        SettingsError: a task that nobody knows.
    """
    own = [str(TASK_FOLDER), *([str(include)] if include else [])]
    # indexing lm-eval's thousands of files takes seconds: only when a task is not ours
    manager = Tasks(include_path=own, include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):
        manager = Tasks(include_path=own)
    if unknown := sorted(set(tasks) - set(manager.all_tasks)):
        raise SettingsError(
            f"no task is called {', '.join(unknown)}",
            where="--tasks or TRAIN_TASKS",
            hint="lm-eval's own list is printed by `lm-eval ls tasks`",
        )
    return manager


def evaluate(request: Request) -> None:
    """Score the checkpoint and write results and per-sample records to the request's output.

    A checkpoint that says in its config.json how it was quantized is computed as it says; others in
    the request's dtype.

    Raises:
        SettingsError: a task that nobody knows, or a chat template that the model does not have.
        DataError: a task's documents cannot be loaded.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    ranks = Ranks.join()
    manager = task_manager(request.tasks, request.include)
    rows, tasks = request.rows, list[Any](request.tasks)
    folder = str(tokenizer_folder(request))
    chat = Chat(folder, rows.train_on if rows else "all")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    templated = bool(tokenizer.chat_template)
    if request.chat_template and not templated:
        raise SettingsError(
            "the model has no chat template", where="--chat-template or TRAIN_CHAT_TEMPLATE"
        )
    if request.chat_template is False:
        tokenizer.chat_template = chat.tokenizer.chat_template = None
        templated = False
    if rows:
        limits = {"max_new_tokens": request.max_new_tokens, "stop": request.stop}
        tasks.append(RowTask(rows, chat, **limits))  # type: ignore[arg-type]
    model = Model(
        load_model(request, ranks),
        tokenizer,
        batch_size=request.batch_size,
        ranks=ranks,
        chat=chat,
        max_seq_len=rows.max_seq_len if rows else None,
    )
    generation = {
        name: value
        for name, value in (("max_gen_toks", request.max_new_tokens), ("until", [*request.stop]))
        if value
    }
    start, cpu = time.perf_counter(), time.process_time()
    try:
        raw = simple_evaluate(
            model,
            tasks=tasks,
            task_manager=manager,
            limit=request.limit,
            num_fewshot=request.fewshot,
            gen_kwargs=generation or None,
            apply_chat_template=templated,
            fewshot_as_multiturn=templated,
            bootstrap_iters=STDERR_SAMPLES,
            log_samples=True,
        )
    except (ConnectionError, OSError) as error:
        raise DataError(
            f"a task's documents cannot be loaded: {error}",
            where=f"--tasks {','.join(request.tasks)}",
            hint="most tasks download their documents from the model hub, once",
        ) from error
    measured = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": peak_bytes(model.device),
    }
    everyone = ranks.gather((measured, model.work, max(model.batch_sizes.values(), default=1)))
    if everyone is not None:
        raw["config"] |= {"model": "hf", "model_args": model_arguments(request)}
        write(
            request,
            raw,
            metrics_of(manager.loaded["tasks"], raw),
            performance(everyone, request.device),
            tokenizer.chat_template,
        )
    ranks.wait()
    ranks.leave()


def tokenizer_folder(request: Request) -> Path:
    """The adapter's folder where it has a tokenizer, else the model's."""
    adapter = request.adapter
    if adapter is not None and (adapter / "tokenizer_config.json").is_file():
        return adapter
    return request.checkpoint


def load_model(request: Request, ranks: Ranks) -> Any:
    """The model on its device, with the adapter on top, merged where weights can be."""
    quantized = is_quantized(request.checkpoint)
    several = request.device == "cuda" and ranks.size > 1
    model = AutoModelForCausalLM.from_pretrained(
        request.checkpoint,
        dtype="auto" if quantized else TORCH_DTYPE[request.dtype],
        device_map={"": f"cuda:{ranks.rank}" if several else request.device},
    )
    if request.adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, request.adapter)
        model = model if quantized else model.merge_and_unload()
    return model.eval()


def model_arguments(request: Request) -> str:
    """As lm-eval's --model_args."""
    adapter = f",peft={request.adapter}" if request.adapter else ""
    return f"pretrained={request.checkpoint}{adapter},dtype={TORCH_DTYPE[request.dtype]}"


def metrics_of(tasks: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Metric]:
    """How each `task/metric` comes about, by the names of entrypoint.evaluation.metrics."""
    names = {function: name for name, function in AGGREGATION_REGISTRY.items()}
    found = {}
    for name, task in tasks.items():
        higher = raw["higher_is_better"].get(name, {})
        for metric, function in task.aggregation().items():
            own = task.metrics.get(metric) if isinstance(task, RowTask) else None
            found[f"{name}/{metric}"] = own or Metric(
                aggregation=names.get(function, getattr(function, "__name__", "unknown")),
                higher_is_better=bool(higher.get(metric, True)),
            )
    return found


def performance(
    everyone: Collection[tuple[dict[str, float], Work, int]], device: str
) -> dict[str, Any]:
    """Of all processes together: seconds of the slowest, tokens of all.

    `peak_bytes` is that of the largest process; on a CPU it includes Python and its libraries.
    """
    measured = [one for one, _, _ in everyone]
    works = [work for _, work, _ in everyone]

    def speed(tokens: str, seconds: str) -> float | None:
        slowest = max(getattr(work, seconds) for work in works)
        return sum(getattr(work, tokens) for work in works) / slowest if slowest else None

    return {
        "device": device,
        "processes": len(works),
        "rows_at_once": max(rows for _, _, rows in everyone),
        "seconds": max(one["seconds"] for one in measured),
        "cpu_seconds": sum(one["cpu_seconds"] for one in measured),
        "peak_bytes": max(one["peak_bytes"] for one in measured),
        "scored_tokens": sum(work.scored_tokens for work in works),
        "scored_tokens_per_second": speed("scored_tokens", "scoring_seconds"),
        "generated_tokens": sum(work.generated_tokens for work in works),
        "generated_tokens_per_second": speed("generated_tokens", "generation_seconds"),
    }
