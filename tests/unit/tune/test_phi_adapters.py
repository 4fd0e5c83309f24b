"""entrypoint.tune.phi_adapters: parts with and without adapters, against PEFT itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from entrypoint.models.card import describe, read_config
from entrypoint.tune import compat
from tests.checkpoints import write_checkpoint

compat.apply()

from entrypoint.tune.phi_adapters import to_peft  # noqa: E402

RANK, ALPHA = 2, 6


def checkpointer(folder: Path, output: Path) -> Any:
    from torchtune.training import FullModelHFCheckpointer

    return FullModelHFCheckpointer(
        checkpoint_dir=str(folder),
        checkpoint_files=["model.safetensors"],
        model_type="PHI3_MINI",
        output_dir=str(output),
    )


@pytest.mark.parametrize(
    ("modules", "mlp", "dora"),
    [
        (["q_proj", "v_proj", "output_proj"], False, False),
        (["output_proj"], True, False),
        (["k_proj"], True, True),
    ],
)
def test_what_torchtune_trained_is_what_peft_loads(
    modules: list[str], mlp: bool, dora: bool, tmp_path: Path
):
    """Fewer k and v rows than q rows, and parts without an adapter between those with one."""
    from omegaconf import OmegaConf
    from peft import PeftModel
    from torchtune.config import instantiate
    from torchtune.modules import peft
    from transformers import AutoModelForCausalLM

    folder = write_checkpoint(tmp_path / "phi", "phi4")
    card = describe("phi", folder, read_config(folder / "config.json"), ("model.safetensors",))
    sizes = {"lora_rank": RANK, "lora_alpha": ALPHA, "use_dora": dora, "max_seq_len": 32}
    where = {"lora_attn_modules": modules, "apply_lora_to_mlp": mlp}
    model = instantiate(
        OmegaConf.create({"_component_": card.lora_builder, **card.arguments, **sizes, **where})
    ).eval()
    both_ways = checkpointer(folder, tmp_path)
    model.load_state_dict(both_ways.load_checkpoint()["model"], strict=False)
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.normal_(std=0.2)
        for module in model.modules():
            if isinstance(module, peft.DoRALinear):
                module.initialize_dora_magnitude()
                module.magnitude.mul_(1.5)
        tuned = model(ids)
    state = model.state_dict()
    config = {"r": RANK, "lora_alpha": ALPHA, "peft_type": "LORA", "use_dora": dora}
    artifacts = {
        "adapter": peft.get_adapter_state_dict(state),
        "adapter_config": config | {"target_modules": modules},
        "model": peft.get_merged_lora_ckpt(dict(state), rank=RANK, alpha=ALPHA),
    }
    both_ways.save_checkpoint(artifacts, epoch=0)
    base = AutoModelForCausalLM.from_pretrained(folder)
    adapted = PeftModel.from_pretrained(base, tmp_path / "epoch_0").eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, tuned, rtol=0, atol=1e-4)
        with adapted.disable_adapter():
            assert (adapted(ids).logits - tuned).abs().max() > 0.05


def test_ranks_and_alphas_grow_with_the_parts():
    adapter = {
        f"layers.0.attn.{part}.lora_{half}.weight": torch.ones(size)
        for part in ("q_proj", "v_proj")
        for half, size in (("a", (RANK, 8)), ("b", (4, RANK)))
    }
    merged = {f"layers.0.attn.{part}_proj.weight": torch.ones(4, 8) for part in "qkv"}
    weights, config = to_peft(adapter, merged, {"r": RANK, "lora_alpha": ALPHA})
    assert config == {
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["qkv_proj"],
        "rank_pattern": {"qkv_proj": 2 * RANK},
        "alpha_pattern": {"qkv_proj": 2 * ALPHA},
    }
    above = weights["base_model.model.model.layers.0.self_attn.qkv_proj.lora_B.weight"]
    assert above.shape == (12, 2 * RANK)
    assert above[4:8].count_nonzero() == 0, "k has no adapter"
