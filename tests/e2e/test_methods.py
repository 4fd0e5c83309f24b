"""What takes a training or two: methods in two processes, and what QAT gains."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from entrypoint.data.source import EMBEDDED_FOLDER
from entrypoint.quantization.folder import quantize
from entrypoint.schemes import Scheme
from entrypoint.topology import World
from tests.e2e.worlds import assert_close, in_two_processes
from tests.recipes import few_rows, losses, recipe, train
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.e2e

METHODS = ("dora", "qlora", "qat", "qat-lora")


def test_two_processes_learn_as_one_by_every_method(tmp_path: Path):
    # sizes that NF4's default blocks divide in halves too, so that the blocks are the same
    model = write_tiny_model(tmp_path / "model", hidden=256)
    given = {"data": str(EMBEDDED_FOLDER), "max_steps": 3, "save_every": 1, "keep": 9}
    alone = {}
    for method in METHODS:
        config = recipe(model, tmp_path / f"{method}-1", method=method, batch_size=4, **given)
        alone[method] = train(config)
    halved = [
        recipe(model, tmp_path / f"{method}-2", method=method, batch_size=2, **given)
        for method in METHODS
    ]
    takes_over = recipe(
        model, tmp_path / "qlora-1-2", method="qlora", batch_size=2, **given,
        resume=str(tmp_path / "qlora-1" / "checkpoints" / "step_2"),
    )  # fmt: skip
    *together, rest = in_two_processes(*halved, takes_over)
    for method, two in zip(METHODS, together, strict=True):
        # a rounded number in the middle of two may go either way
        close = 2e-3 if method.startswith("qat") else 1e-5
        assert losses(two) == pytest.approx(losses(alone[method]), abs=close), method
        if close < 1e-3:
            assert_close(tmp_path / f"{method}-1", tmp_path / f"{method}-2")
    (last,) = losses(rest)
    assert last == pytest.approx(losses(alone["qlora"])[2], abs=1e-5)


def test_a_quantized_copy_is_better_after_quantization_aware_training(
    tiny_model: Path, tmp_path: Path
):
    """A model that knows its rows well loses some of it when it is rounded. Trained on for as many
    steps with rounding, its copy has the lower loss."""
    data = few_rows(tmp_path / "data", train=8)
    rows = tmp_path / "data" / "train.jsonl"
    rows.with_name("eval.jsonl").write_bytes(rows.read_bytes())

    def tuned(model: Path, name: str, steps: int, **settings: Any) -> Path:
        config = recipe(
            model, tmp_path / name, data=data, max_steps=steps, epochs=steps, batch_size=8,
            save_every=1000, **settings,
        )  # fmt: skip
        train(config)
        return tmp_path / name / "checkpoints" / f"epoch_{steps - 1}"

    def copy_of(folder: Path) -> Path:
        copy = folder.with_name("8da4w")
        world = World(device="cpu", devices=1, dtype="fp32", cores=1)
        quantize(folder, Scheme(), world, copy)
        return copy

    knows = tuned(tiny_model, "knows", 80, method="full", lr=1e-2)
    plain = tuned(knows, "plain", 40, method="full", lr=2e-3)
    aware = tuned(knows, "aware", 40, method="qat", lr=2e-3)
    unquantized = mean_loss(plain, tmp_path / "plain" / "recipe.yaml")
    rounded = mean_loss(copy_of(plain), tmp_path / "plain" / "recipe.yaml")
    trained_for_it = mean_loss(copy_of(aware), tmp_path / "aware" / "recipe.yaml")
    assert unquantized < 0.01
    assert rounded > 1.03 * unquantized
    assert trained_for_it < 0.95 * rounded


def mean_loss(folder: Path, written: Path) -> float:
    """Over all labels of a run's training rows, as transformers computes it."""
    import torch
    from torchtune.config import instantiate
    from transformers import AutoModelForCausalLM

    config = OmegaConf.load(written)
    rows = instantiate(config.dataset, instantiate(config.tokenizer))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total = count = 0.0
    with torch.no_grad():
        for row in (rows[index] for index in range(len(rows))):
            labels = torch.tensor(row["labels"])[1:]
            logits = model(torch.tensor([row["tokens"]])).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            count += int((labels != -100).sum())
    return total / count
