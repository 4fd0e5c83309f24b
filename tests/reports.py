"""A run folder as a run leaves it, made up: for what only reads it."""

import json
import math
import random
from pathlib import Path
from typing import Any

from entrypoint.comparison.paired import compare, record
from entrypoint.evaluation.metrics import aggregate, answer_scores
from entrypoint.evaluation.request import METRICS, read
from entrypoint.gate import judge, parse
from entrypoint.run_folder import RunFolder
from entrypoint.settings import Settings
from tests.unit import factories

ROWS = 40
BYTES = {"base": 269_060_552, "tuned": 538_090_408, "8da4w": 123_456_789}
NAMES = ("Rosa Walsh", "Ines Castro", "Tom <b>Bold</b>", "Aiko & Sons")
SKILL = {"base": 0.0, "tuned": 0.9, "8da4w": 0.75}
"""Label -> share of right answers."""


def write_run(folder: Path, *, steps: int = 60) -> RunFolder:
    """Write the folder: three scored models, metrics of all steps, a description of the data."""
    run = RunFolder(root=folder)
    data = folder.parent / f"{folder.name}-data"
    data.mkdir(parents=True)
    _write(data / "dataset.json", DATASET)
    run.logs.mkdir(parents=True)
    settings = Settings(
        data=str(data), then=("quantize", "eval"), gates=("exact_match>=base-0.01",), lr=2e-4,
        output=folder, max_steps=steps,
    )  # fmt: skip
    _write(run.manifest, MANIFEST | {"settings": settings.as_dict()})
    run.recipe.write_text(f"dataset:\n  data_files: {data / 'train.jsonl'}\nseed: 42\n")
    draw = random.Random(1)
    lines = [metrics(step, steps, draw) for step in range(1, steps + 1)]
    (run.logs / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for label in SKILL:
        _write(run.evaluation(label), evaluation(label, draw))
    evaluations = [read(run.evaluation(label)) for label in SKILL]
    verdicts = judge(
        [parse(text) for text in settings.gates], {one.label: one.scores for one in evaluations}
    )
    _write(run.comparison, record(compare(evaluations), verdicts))
    _write(run.result, {"artifacts": {"quantized": {"8da4w": "quantized/8da4w"}}})
    return run


def metrics(step: int, steps: int, draw: random.Random) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    loss = 0.3 + 1.8 * math.exp(-step / 12) + draw.uniform(-0.08, 0.08)
    found: dict[str, Any] = {
        "step": step, "epoch": 1, "loss": loss, "lr": 2e-4 * min(step / 6, 1 - step / steps / 1.1),
        "tokens": 410, "tokens_trained": 140, "tokens_per_second": draw.uniform(380, 430),
        "step_seconds": 1.0, "peak_memory_bytes": 1_900_000_000 + 1_000_000 * step,
    }  # fmt: skip
    if step % 12 == 0:
        found["validation_loss"] = loss + 0.06
    return found


def evaluation(label: str, draw: random.Random) -> dict[str, Any]:
    """What `train eval` writes."""
    samples = []
    for row in range(ROWS):
        name = NAMES[row % len(NAMES)]
        target = json.dumps({"name": name, "amount": 100 + row, "place": "Montreal"})
        right = draw.random() < SKILL[label]
        answer = target if right else f"Sure! I booked {100 + row} euros for {name.split()[0]}."
        tokens = 30
        loss = (
            tokens * draw.uniform(0.02, 0.1) if right else tokens * draw.uniform(0.5, 0.9),
            tokens,
        )
        samples.append(
            {
                "doc_id": row,
                "doc_hash": f"{row:064x}",
                "prompt": f"<|im_start|>user\n{100 + row} euros paid by {name} for the course in "
                "Montreal on 12 Jun 2027.<|im_end|>\n<|im_start|>assistant\n",
                "target": target,
                "answer": answer,
                "scores": answer_scores(target, answer) | {"loss": loss, "perplexity": loss},
            }
        )
    known = METRICS["sft"]
    scores = {
        f"bookings/{name}": aggregate(metric.aggregation, [one["scores"][name] for one in samples])
        for name, metric in known.items()
    }
    return {
        "label": label,
        "model": {
            "checkpoint": f"/models/{label}", "adapter": None,
            "weights_bytes": BYTES[label],
        },
        "scores": scores,
        "rows": {"bookings": ROWS},
        "metrics": {
            f"bookings/{name}": {
                "aggregation": metric.aggregation, "higher_is_better": metric.higher_is_better
            }
            for name, metric in known.items()
        },
        "performance": {
            "device": "cpu", "processes": 1, "seconds": 30.0, "peak_bytes": 1_400_000_000,
            "scored_tokens_per_second": 1234.5,
            "generated_tokens_per_second": 100 - 10 * len(label),
        },
        "samples": {"bookings": samples},
    }  # fmt: skip


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


MANIFEST: dict[str, Any] = {
    "version": 1,
    "started": "2026-11-25T08:00:00+00:00",
    "seed": 42,
    "world": {"device": "cpu", "dtype": "fp32", "cores": 2, "processes": 1},
    "model": {"reference": "embedded", "parameters": factories.MODEL.parameters},
    "data": {
        "reference": "bookings.jsonl",
        "train": {"rows": 1000, "sha256": "a" * 64},
        "evaluation": {"rows": ROWS, "sha256": "b" * 64},
    },
    "versions": {"python": "3.11.7", "tunecask": "0.1.0", "torch": "2.13.0", "wandb": None},
    "platform": "Linux-6.1.0-amd64-x86_64-with-glibc2.36",
    "image": None,
    "git_revision": "0123456789abcdef0123456789abcdef01234567",
    "executable": "/usr/bin/python3",
}
DATASET: dict[str, Any] = {
    "version": 1,
    "format": "messages",
    "rows_read": 1045,
    "checks": {
        "duplicates": {"policy": "drop", "rows": 5, "examples": ["train.jsonl, line 7"]},
        "empty": {"policy": "error", "rows": 0, "examples": []},
    },
    "tokens": {
        "total": 98_765, "trained_share": 0.3321, "median": 97, "longest": 334,
        "histogram": [
            {"from": low + 1, "to": high, "rows": rows}
            for low, high, rows in ((48, 64, 40), (64, 96, 410), (96, 128, 420), (128, 192, 110),
                                    (192, 256, 18), (256, 384, 2))
        ],
    },
}  # fmt: skip
