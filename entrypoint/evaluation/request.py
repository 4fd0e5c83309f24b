"""What an evaluation is asked for and what it answers; imports nothing heavy."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

TASK_FOLDER = Path(__file__).parent / "tasks"
LM_EVAL_FOLDER = "lm_eval"
"""Beside our own results: a folder for each label with lm-eval's files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Held-out rows of a data set, scored without a task file."""

    name: str
    """Of the task in the results."""
    path: Path
    """A file of canonical rows."""
    kind: Literal["sft", "preference", "text"]
    max_seq_len: int
    """Tokens after which a row is cut, as in training."""
    train_on: Literal["last", "all"] = "all"
    """Which answers of a conversation carry loss, as in training."""
    examples: Path | None = None
    """A file of rows to draw few-shot examples from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One checkpoint to score."""

    label: str
    """base, tuned, or what the user calls it."""
    checkpoint: Path
    """A folder that transformers loads."""
    adapter: Path | None = None
    """A PEFT folder to put on top of it."""
    tasks: tuple[str, ...] = ()
    """Names known to lm-eval, to the folder shipped here or to `include`."""
    rows: Rows | None = None
    device: str
    dtype: str
    processes: int = 1
    """Each with a copy of the model and its share of the rows."""
    output: Path
    limit: int | None = None
    """Rows per task; None takes all."""
    batch_size: int | None = None
    """Rows that go through the model together; None finds it by length and memory."""
    fewshot: int | None = None
    """Examples in the prompt; None takes what the task says."""
    chat_template: bool | None = None
    """None applies it where the model has one."""
    max_new_tokens: int | None = None
    """Of an answer; None takes what the task says, or the rows' longest answer; 0 asks for none."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer."""
    include: Path | None = None
    """A folder with task files of the user's own."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        values: dict[str, Any] = json.loads(text)
        _paths(values, "checkpoint", "adapter", "output", "include")
        if values["rows"]:
            _paths(values["rows"], "path", "examples")
            values["rows"] = Rows(**values["rows"])
        return cls(**values | {name: tuple(values[name]) for name in ("tasks", "stop")})


def _paths(values: dict[str, Any], *names: str) -> None:
    for name in names:
        values[name] = Path(values[name]) if values[name] else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """How the values of samples come to one."""

    aggregation: str
    """A name of entrypoint.evaluation.metrics, or lm-eval's own where we do not know it."""
    higher_is_better: bool = True


ROUGE = ("rouge1", "rouge2", "rougeL")
LOSS = {
    "loss": Metric(aggregation="ratio", higher_is_better=False),
    "perplexity": Metric(aggregation="exp_ratio", higher_is_better=False),
}
ANSWERS = {
    "exact_match": Metric(aggregation="mean"),
    **{name: Metric(aggregation="mean") for name in ROUGE},
    "bleu": Metric(aggregation="corpus_bleu"),
}
PREFERENCE = {
    "preference_accuracy": Metric(aggregation="mean"),
    "preference_margin": Metric(aggregation="mean"),
}
METRICS: Mapping[str, Mapping[str, Metric]] = {
    "sft": {**ANSWERS, **LOSS},
    "preference": {**PREFERENCE, **LOSS},
    "text": LOSS,
}
"""Kind of rows -> what is computed of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One checkpoint's scores."""

    label: str
    checkpoint: Path
    adapter: Path | None = None
    scores: Mapping[str, float]
    """`task/metric` -> value, as the harness aggregates it."""
    rows: Mapping[str, int]
    """Task -> number of rows that were scored."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """`task/metric` -> how it comes about."""
    weights_bytes: int = 0
    """Of the weight files, an adapter's included."""
    performance: Mapping[str, Any] = field(default_factory=dict)
    """Seconds, tokens a second, bytes of memory: see entrypoint.evaluation.record."""
    samples: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Task -> what was asked and answered, in the order of the rows."""


def read(path: Path) -> Evaluation:
    """A written evaluation."""
    found = json.loads(path.read_text("utf-8"))
    model = found["model"]
    return Evaluation(
        label=found["label"],
        checkpoint=Path(model["checkpoint"]),
        adapter=Path(model["adapter"]) if model["adapter"] else None,
        scores=found["scores"],
        rows=found["rows"],
        metrics={name: Metric(**metric) for name, metric in found["metrics"].items()},
        weights_bytes=model["weights_bytes"],
        performance=found["performance"],
        samples=found["samples"],
    )
