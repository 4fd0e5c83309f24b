"""entrypoint.collect: from a recipe's leavings to the run folder."""

import json
from pathlib import Path

import pytest

from entrypoint import collect, gate
from entrypoint.errors import TrainingError
from entrypoint.evaluation.request import Evaluation
from tests.unit.factories import plan


def write_metrics(folder: Path, *losses: float) -> Path:
    path = folder / "logs" / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses, start=1)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def finished(tmp_path: Path):
    """A plan whose recipe has ended, with merged weights and an adapter in one folder."""
    import dataclasses

    from entrypoint.run_folder import RunFolder

    decided = dataclasses.replace(plan(), folder=RunFolder(root=tmp_path))
    write_metrics(tmp_path, 2.0, 0.5)
    epoch = tmp_path / "checkpoints" / "epoch_0"
    epoch.mkdir(parents=True)
    (epoch / "config.json").write_text('{"dtype": "bfloat16", "vocab_size": 5}')
    for name in (
        "model-00001-of-00001.safetensors",
        "adapter_model.safetensors",
        "adapter_model.pt",
    ):
        (epoch / name).write_bytes(b"w")
    (epoch / "adapter_config.json").write_text('{"r": 16, "base_model_name_or_path": null}')
    (tmp_path / "checkpoints" / "torchtune_config.yaml").write_text("")
    return decided


def test_merged_weights_and_adapter_are_kept_apart(finished):
    metrics = collect.collect(finished)
    assert (metrics.steps, metrics.first_loss, metrics.last_loss) == (2, 2.0, 0.5)
    root = finished.folder.root
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == {
        "logs/metrics.jsonl",
        "final/config.json",
        "final/model-00001-of-00001.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    config = json.loads((root / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "/models/m"
    assert json.loads((root / "final" / "config.json").read_text())["dtype"] == "float32"


def test_checkpoints_stay(finished):
    saved = finished.folder.checkpoints / "step_2"
    saved.mkdir()
    (saved / "manifest.json").write_text("{}")
    collect.collect(finished)
    assert (saved / "manifest.json").is_file()


def test_the_result_has_its_keys(finished):
    metrics = collect.collect(finished)
    scores = {"embedded/exact_match": 0.0}
    base = Evaluation(label="base", checkpoint=Path("/m"), scores=scores, rows={"embedded": 1})
    verdicts = gate.judge([gate.parse("exact_match>=0.5")], {"base": scores, "tuned": scores})
    collect.write_result(finished, metrics, [base], ["8da4w"], verdicts)
    result = json.loads(finished.folder.result.read_text())
    assert result == {
        "version": 1,
        "status": "completed",
        "objective": "sft",
        "method": "lora",
        "steps": 2,
        "loss": {"first": 2.0, "last": 0.5},
        "artifacts": {
            "final": "final",
            "adapter": "adapter",
            "quantized": {"8da4w": "quantized/8da4w"},
        },
        "evaluation": {"base": {"embedded/exact_match": 0.0}},
        "comparison": "compare.json",
        "gates": [
            {
                "gate": "exact_match>=0.5",
                "label": "tuned",
                "score": "embedded/exact_match",
                "value": 0.0,
                "bound": 0.5,
                "holds": False,
            }
        ],
    }


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path, loss: float):
    with pytest.raises(TrainingError, match="at step 2"):
        collect.read_metrics(write_metrics(tmp_path, 1.0, loss))


def test_no_step_and_no_checkpoint_are_errors(finished):
    finished.folder.checkpoints.rename(finished.folder.root / "elsewhere")
    with pytest.raises(TrainingError, match="without a model"):
        collect.collect(finished)
    (finished.folder.logs / "metrics.jsonl").unlink()
    with pytest.raises(TrainingError, match="no step"):
        collect.collect(finished)
