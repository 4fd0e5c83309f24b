"""All that makes training faster, against torchtune's recipes: the same loss on held-out rows."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from entrypoint.data.source import EMBEDDED_FOLDER
from tests.recipes import UNPACKED, recipe, train, train_stock

pytestmark = pytest.mark.e2e

ROWS = 24


def held_out_loss(model: Path, tuned: Path | None) -> float:
    """Mean over the answers' tokens, as transformers computes it in fp32."""
    from transformers import AutoModelForCausalLM

    from entrypoint.tune.datasets import ChatDataset
    from entrypoint.tune.tokenizer import ChatTokenizer

    decoder = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    if tuned:
        weights = load_file(tuned / "checkpoints" / "epoch_0" / "model-00001-of-00001.safetensors")
        assert decoder.load_state_dict(weights, strict=False).unexpected_keys == []
    rows = ChatDataset(ChatTokenizer(str(model)), str(EMBEDDED_FOLDER / "eval.jsonl"))
    total = count = 0.0
    with torch.no_grad():
        for row in (rows[index] for index in range(ROWS)):
            logits = decoder(torch.tensor([row["tokens"]])).logits[0, :-1]
            labels = torch.tensor(row["labels"][1:])
            total += float(F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
            count += int((labels != -100).sum())
    return total / count


@pytest.mark.parametrize(("method", "dtype"), [("lora", "bf16"), ("full", "fp32")])
def test_faster_training_reaches_the_same_held_out_loss(
    method: str, dtype: str, tiny_model: Path, tmp_path: Path
):
    given = {"method": method, "dtype": dtype, "max_steps": 16, "lr": 5e-3}
    train_stock(recipe(tiny_model, tmp_path / "stock", *UNPACKED, **given))
    train(recipe(tiny_model, tmp_path / "ours", **given))
    base = held_out_loss(tiny_model, None)
    stock, ours = (held_out_loss(tiny_model, tmp_path / name) for name in ("stock", "ours"))
    assert stock < 0.95 * base, "nothing was learned"
    assert ours == pytest.approx(stock, rel=0.01)
