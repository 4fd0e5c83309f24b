"""entrypoint.tune.fused: the same results and gradients as torchtune's layers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from entrypoint.models.card import describe, read_config
from entrypoint.models.weights import find_shards
from entrypoint.tune import compat
from tests.checkpoints import KINDS, write_checkpoint

compat.apply()

from torchtune.config import instantiate  # noqa: E402
from torchtune.models.llama3_2 import lora_llama3_2  # noqa: E402
from torchtune.modules.peft import LoRALinear, disable_adapter, get_adapter_params  # noqa: E402

from entrypoint.tune.fused import fuse  # noqa: E402

ADAPTER = {
    "lora_attn_modules": ["q_proj", "v_proj", "output_proj"],
    "apply_lora_to_mlp": True,
    "lora_rank": 4,
    "lora_alpha": 8,
}
SIZES = {
    "vocab_size": 31, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 32,
    "intermediate_dim": 48, "max_seq_len": 32,
}  # fmt: skip
TOKENS = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(3))


def twice(build: Any) -> Iterator[Any]:
    """The same decoder, as torchtune computes it and fused; adapters are not zero."""
    for fused in (False, True):
        torch.manual_seed(0)
        model = build()
        for name, weight in model.named_parameters():
            if ".lora_b" in name or name.endswith("scale"):
                torch.nn.init.normal_(weight, mean=0.3 if "scale" in name else 0.0, std=0.3)
        if fused:
            fuse(model)
        yield model


def in_bf16(build: Any) -> tuple[Any, Any]:
    """As `twice`, in bf16 but for the angles of positions, as in a run."""
    one, other = (model.bfloat16() for model in twice(build))
    for layer in (*one.layers, *other.layers):
        layer.attn.pos_embeddings.rope_init()
    return one, other


def assert_same(one: Any, other: Any, positions: torch.Tensor | None = None) -> None:
    """The same logits, and gradients where torchtune's has any."""
    results = [model(TOKENS, input_pos=positions) for model in (one, other)]
    assert results[0].std() > 0.01
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    for result in results:
        result.square().sum().backward()
    for (name, weight), fused in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (weight.grad is None) == (fused.grad is None), name
        if weight.grad is not None:
            torch.testing.assert_close(
                fused.grad, weight.grad, rtol=1e-3, atol=1e-4 * float(weight.grad.abs().max())
            )


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_family_computes_and_learns_the_same(kind: str, method: str, tmp_path: Path):
    folder = write_checkpoint(tmp_path / kind, kind)
    card = describe(kind, folder, read_config(folder / "config.json"), find_shards(folder))
    builder = {"lora": card.lora_builder, "full": card.builder}[method]
    keys = {**card.arguments, "max_seq_len": 32, **(ADAPTER if method == "lora" else {})}
    one, other = twice(lambda: instantiate(OmegaConf.create({"_component_": builder, **keys})))
    if method == "lora":
        for model in (one, other):
            adapter = get_adapter_params(model)
            for name, weight in model.named_parameters():
                weight.requires_grad_(name in adapter)
    assert_same(one, other, torch.arange(12).flip(0).expand(2, -1))


def test_the_layers_of_a_llama_are_fused():
    _, fused = twice(lambda: lora_llama3_2(**SIZES, **ADAPTER))
    taken = {type(module).__name__ for module in fused.modules() if "forward" in vars(module)}
    assert taken == {"RMSNorm", "Llama3ScaledRoPE", "Linear", "LoRALinear", "FeedForward"}


def test_adapters_that_are_off_stay_off():
    one, other = twice(lambda: lora_llama3_2(**SIZES, **ADAPTER))
    with torch.no_grad():
        on = other(TOKENS)
        with disable_adapter(one), disable_adapter(other):
            torch.testing.assert_close(other(TOKENS), one(TOKENS))
            assert (other(TOKENS) - on).abs().max() > 0.01


def test_dropout_is_drawn_in_training_alone():
    one, other = twice(lambda: lora_llama3_2(**SIZES, **ADAPTER, lora_dropout=0.5))
    torch.testing.assert_close(other.eval()(TOKENS), one.eval()(TOKENS))
    torch.manual_seed(1)
    expected = one.train()(TOKENS)
    torch.manual_seed(1)
    torch.testing.assert_close(other.train()(TOKENS), expected)
    assert not torch.allclose(other(TOKENS), expected)


def test_in_bf16_it_is_as_exact_as_torchtunes():
    exact, _ = twice(lambda: lora_llama3_2(**SIZES, **ADAPTER))
    wanted = exact(TOKENS)
    one, other = in_bf16(lambda: lora_llama3_2(**SIZES, **ADAPTER))
    theirs, ours = ((model(TOKENS) - wanted).norm() / wanted.norm() for model in (one, other))
    assert 0 < ours < 1.3 * theirs


@pytest.mark.parametrize("slow", [False, True], ids=["bf16", "fp32-products"])
def test_gradients_in_bf16_are_as_exact_as_torchtunes(slow: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("entrypoint.tune.products.SLOW_IN_BF16", slow)
    exact, _ = twice(lambda: lora_llama3_2(**SIZES, **ADAPTER))
    one, other = in_bf16(lambda: lora_llama3_2(**SIZES, **ADAPTER))
    for model in (exact, one, other):
        model(TOKENS).float().square().sum().backward()
    wanted, theirs, ours = (
        torch.cat([weight.grad.float().flatten() for weight in model.parameters()])
        for model in (exact, one, other)
    )
    far = [float((found - wanted).norm() / wanted.norm()) for found in (theirs, ours)]
    assert 0 < far[1] < 1.1 * far[0]


@pytest.mark.parametrize("slow", [False, True], ids=["bf16", "fp32-products"])
def test_in_bf16_a_small_adapter_is_not_lost(slow: bool, monkeypatch: pytest.MonkeyPatch):
    """A hundredth of a result is less than half of its last bit, but not less in the mean."""
    monkeypatch.setattr("entrypoint.tune.products.SLOW_IN_BF16", slow)
    torch.manual_seed(0)
    layer = LoRALinear(64, 64, rank=4, alpha=4).bfloat16()
    torch.nn.init.normal_(layer.lora_b.weight, std=2e-4)
    layer.requires_grad_(False)
    x = torch.randn(512, 64).bfloat16()
    small = layer.lora_b(layer.lora_a(x)).float()
    plain = torch.nn.functional.linear(x, layer.weight)
    assert 0 < small.abs().mean() < plain.abs().float().mean() / 1000

    def kept(found: torch.Tensor) -> float:
        """Share of the adapter's part that is in the results."""
        return float(((found.float() - plain.float()) * small).sum() / small.square().sum())

    theirs = kept(layer(x))
    wrapper = torch.nn.Sequential(layer)
    fuse(wrapper)
    ours = kept(wrapper(x))
    assert theirs < 0.5
    assert ours == pytest.approx(1, abs=0.2)
