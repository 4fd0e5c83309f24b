"""Every family, from a checkpoint of transformers through card and torchtune, and back."""

from pathlib import Path
from typing import Any

import pytest
import torch

from entrypoint.errors import ModelError
from entrypoint.methods import LORA_ATTENTION
from entrypoint.models.card import Model, describe, read_config
from entrypoint.models.tied import check_tied
from entrypoint.models.weights import find_shards, verify
from entrypoint.tune import compat
from tests.checkpoints import KINDS, write_checkpoint

LENGTH = 24
LORA = {
    "lora_attn_modules": [*LORA_ATTENTION, "k_proj"],
    "apply_lora_to_mlp": True,
    "lora_rank": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.0,
}


@pytest.fixture(scope="module", params=KINDS)
def card(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write_checkpoint(tmp_path_factory.mktemp("families") / request.param, request.param)
    shards = find_shards(folder)
    model = describe(request.param, folder, read_config(folder / "config.json"), shards)
    verify(folder, shards, model.tensors)
    return model


def build(path: str, arguments: Any) -> torch.nn.Module:
    compat.apply()
    from omegaconf import OmegaConf
    from torchtune.config import instantiate

    torch.manual_seed(1)
    return instantiate(OmegaConf.create({"_component_": path, **arguments}))


def checkpointer(card: Model, output: Path) -> Any:
    compat.apply()
    from torchtune.training import FullModelHFCheckpointer

    return FullModelHFCheckpointer(
        checkpoint_dir=str(card.folder),
        checkpoint_files=list(card.shards),
        model_type=card.model_type,
        output_dir=str(output),
    )


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    eager = {"attn_implementation": "eager"} if "gemma2" in str(folder) else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **eager).eval()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 96, (2, LENGTH), generator=torch.Generator().manual_seed(7))


def test_logits_equal_those_of_transformers(card: Model, tmp_path: Path, ids: torch.Tensor):
    model = build(card.builder, {**card.arguments, "max_seq_len": card.context}).eval()
    model.load_state_dict(checkpointer(card, tmp_path).load_checkpoint()["model"])
    with torch.no_grad():
        expected, found = loaded(card.folder)(ids).logits, model(ids)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_the_count_is_that_of_transformers(card: Model):
    assert card.parameters == sum(p.numel() for p in loaded(card.folder).parameters())


def test_what_is_saved_is_what_was_loaded(card: Model, tmp_path: Path):
    from safetensors.torch import load_file

    model = build(card.builder, {**card.arguments, "max_seq_len": 32})
    both_ways = checkpointer(card, tmp_path)
    model.load_state_dict(both_ways.load_checkpoint()["model"])
    both_ways.save_checkpoint({"model": model.state_dict()}, epoch=0)
    before, after = (
        {
            name: tensor
            for shard in folder.glob("*.safetensors")
            for name, tensor in load_file(shard).items()
        }
        for folder in (card.folder, tmp_path / "epoch_0")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    folder = (tmp_path / "epoch_0").rename(tmp_path / card.reference)
    ours, theirs = loaded(folder).state_dict(), loaded(card.folder).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_adapters_train_on_the_same_weights(card: Model, tmp_path: Path, ids: torch.Tensor):
    """The LoRA builder takes the base; merged weights and the PEFT adapter are the same model."""
    model = build(card.lora_builder, {**card.arguments, "max_seq_len": 32, **LORA}).eval()
    both_ways = checkpointer(card, tmp_path)
    found = model.load_state_dict(both_ways.load_checkpoint()["model"], strict=False)
    assert found.unexpected_keys == []
    assert {name.rsplit(".", 2)[1] for name in found.missing_keys} == {"lora_a", "lora_b"}
    with torch.no_grad():
        base = loaded(card.folder)(ids).logits
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
        tuned = model(ids)
    assert (tuned - base).abs().max() > 0.05
    save_adapter(both_ways, model)
    with torch.no_grad():
        assert_adapter(card, tmp_path / "epoch_0", tuned, ids)
        for path in (tmp_path / "epoch_0").glob("adapter*"):
            path.unlink()
        merged_folder = (tmp_path / "epoch_0").rename(tmp_path / card.reference)
        torch.testing.assert_close(loaded(merged_folder)(ids).logits, tuned, rtol=0, atol=1e-4)


def save_adapter(both_ways: Any, model: torch.nn.Module) -> None:
    from torchtune.modules import peft

    state = model.state_dict()
    config = {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": [*LORA["lora_attn_modules"], "w1", "w2", "w3"],
        "peft_type": "LORA",
    }
    adapter = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    merged = peft.get_merged_lora_ckpt(dict(state), rank=2, alpha=4)
    both_ways.save_checkpoint(
        {"model": merged, "adapter": adapter, "adapter_config": config}, epoch=0
    )


def assert_adapter(card: Model, folder: Path, tuned: torch.Tensor, ids: torch.Tensor) -> None:
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(loaded(card.folder), folder).eval()
    torch.testing.assert_close(adapted(ids).logits, tuned, rtol=0, atol=1e-4)


def test_no_builder_is_passed_what_it_does_not_take(card: Model):
    """The plan's arguments reach both builders by name, on no device at all."""
    with torch.device("meta"):
        plain = build(card.builder, {**card.arguments, "max_seq_len": 32})
    assert sum(p.numel() for p in plain.parameters()) == card.parameters


def test_rotary_tables_are_exact_when_training_in_bf16():
    from entrypoint.tune.phi3 import PhiRope

    given = {"dim": 8, "max_seq_len": 16, "base": 10_000, "factor": [1.01, 1.2, 1.7, 2.3]}
    exact = PhiRope(**given, scale=1.19)
    torch.set_default_dtype(torch.bfloat16)
    try:
        trained = PhiRope(**given, scale=1.19)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(trained.cache, exact.cache)


@pytest.mark.parametrize("kind", ["llama3.2", "gemma", "phi4-mini", "qwen3-tied"])
def test_a_head_beside_the_embedding_that_it_is_tied_to(kind: str, tmp_path: Path):
    """Qwen3-0.6B is published so."""
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path / kind, kind)
    weights = load_file(folder / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    both = weights | {"lm_head.weight": head}
    save_file(both, folder / "model.safetensors", metadata={"format": "pt"})
    shards = find_shards(folder)
    card = describe(kind, folder, read_config(folder / "config.json"), shards)
    verify(folder, shards, card.tensors)
    check_tied(folder, shards)
    model = build(card.builder, {**card.arguments, "max_seq_len": 32})
    both_ways = checkpointer(card, tmp_path)
    model.load_state_dict(both_ways.load_checkpoint()["model"])
    both_ways.save_checkpoint({"model": model.state_dict()}, epoch=0)
    kept = load_file(next((tmp_path / "epoch_0").glob("*.safetensors")))
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weight) for name, weight in weights.items())

    head[-1, -1] += 1
    save_file(both, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="two different matrices"):
        check_tied(folder, shards)


def test_rotary_frequencies_in_early_llama_files_do_no_harm(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path / "llama2", "llama2")
    weights = load_file(folder / "model.safetensors")
    stored = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(weights | stored, folder / "model.safetensors", metadata={"format": "pt"})
    shards = find_shards(folder)
    early = describe("early", folder, read_config(folder / "config.json"), shards)
    verify(folder, shards, early.tensors)
    both_ways = checkpointer(early, tmp_path)
    both_ways.save_checkpoint({"model": both_ways.load_checkpoint()["model"]}, epoch=0)
    kept = loaded(tmp_path / "epoch_0").state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in weights.items())
