"""From what a recipe leaves behind to the run folder's artifacts and result."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from entrypoint.errors import TrainingError
from entrypoint.evaluation.request import Evaluation
from entrypoint.files import share, write_json
from entrypoint.gate import Verdict
from entrypoint.models.card import TORCH_DTYPE
from entrypoint.plan import Plan

RESULT_VERSION = 1
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
TORCHTUNE_ADAPTER = "adapter_model.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingMetrics:
    """What the metrics stream says of a run as a whole."""

    steps: int
    first_loss: float
    last_loss: float


def collect(plan: Plan) -> TrainingMetrics:
    """Move what the recipe has saved in the end to final/ and adapter/, and read the metrics.

    The two are kept apart: transformers would load an adapter that lies beside merged weights on
    top of them.

    Raises:
        TrainingError: the recipe left no checkpoint, or a loss that is not a number.
    """
    metrics = read_metrics(plan.folder.metrics)
    epoch_folder = plan.folder.checkpoints / f"epoch_{plan.epochs - 1}"
    if not epoch_folder.is_dir():
        raise TrainingError(
            "training ended without a model",
            where=plan.folder.checkpoints,
            hint="a recipe of one's own must save to model_output_dir",
        )
    if (epoch_folder / ADAPTER_FILES[0]).exists():
        # torchtune's second copy of the same adapter, for its own resume; training is over
        (epoch_folder / TORCHTUNE_ADAPTER).unlink(missing_ok=True)
        _separate_adapter(epoch_folder, plan)
    _state_dtype(epoch_folder / "config.json", plan.world.dtype)
    share(epoch_folder)
    epoch_folder.rename(plan.folder.final)
    # torchtune's loggers write the recipe once more
    (plan.folder.checkpoints / "torchtune_config.yaml").unlink(missing_ok=True)
    return metrics


def read_metrics(path: Path) -> TrainingMetrics:
    """First and last loss of a metrics.jsonl.

    Raises:
        TrainingError: there is no step, or a loss is not finite.
    """
    try:
        steps = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except FileNotFoundError:
        steps = []
    if not steps:
        raise TrainingError(
            "training logged no step",
            where=path,
            hint="the recipe's metric_logger must be entrypoint.tune.metrics.MetricStream",
        )
    for step in steps:
        if not math.isfinite(step["loss"]):
            raise TrainingError(
                f"the loss is {step['loss']} at step {step['step']}",
                where=path,
                hint="lower --lr, or train with --dtype fp32",
            )
    return TrainingMetrics(
        steps=steps[-1]["step"], first_loss=steps[0]["loss"], last_loss=steps[-1]["loss"]
    )


def _separate_adapter(epoch_folder: Path, plan: Plan) -> None:
    """Move the adapter that lies beside the merged weights into a PEFT folder of its own."""
    scratch = epoch_folder / ".adapter.partial"
    scratch.mkdir()
    for name in ADAPTER_FILES:
        (epoch_folder / name).rename(scratch / name)
    config = json.loads((scratch / ADAPTER_FILES[0]).read_text("utf-8"))
    config |= {"base_model_name_or_path": str(plan.model.folder), "task_type": "CAUSAL_LM"}
    write_json(scratch / ADAPTER_FILES[0], config)
    share(scratch)
    scratch.rename(plan.folder.adapter)


def _state_dtype(config_path: Path, dtype: str) -> None:
    """Make config.json name the dtype that the weights were saved in; torchtune copies the base's,
    and transformers would round the weights to it."""
    config = json.loads(config_path.read_text("utf-8"))
    config.pop("torch_dtype", None)
    write_json(config_path, config | {"dtype": TORCH_DTYPE[dtype]})


def write_result(
    plan: Plan,
    metrics: TrainingMetrics,
    evaluations: Sequence[Evaluation],
    quantized: Sequence[str],
    verdicts: Sequence[Verdict] = (),
) -> dict[str, Any]:
    """Write result.json, the versioned summary that other programs read, and return it."""
    result: dict[str, Any] = {
        "version": RESULT_VERSION,
        "status": "completed",
        "objective": plan.settings.objective,
        "method": plan.settings.method,
        "steps": metrics.steps,
        "loss": {"first": metrics.first_loss, "last": metrics.last_loss},
        "artifacts": {
            "final": "final",
            "adapter": "adapter" if plan.folder.adapter.is_dir() else None,
            "quantized": {method: f"quantized/{method}" for method in quantized},
        },
        "evaluation": {found.label: dict(found.scores) for found in evaluations},
        "comparison": plan.folder.comparison.name if evaluations else None,
        "gates": [asdict(verdict) for verdict in verdicts],
    }
    write_json(plan.folder.result, result)
    return result
