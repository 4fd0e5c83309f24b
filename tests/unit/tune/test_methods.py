"""entrypoint.tune.methods: what each method hands over is the model that was trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from entrypoint.methods import NF4_BYTES, model_arguments, quantizer
from entrypoint.models.card import Model, describe, read_config
from entrypoint.models.weights import find_shards
from entrypoint.quantization.folder import quantize
from entrypoint.schemes import Scheme
from entrypoint.settings import Settings
from entrypoint.tune import compat
from tests.checkpoints import write_checkpoint
from tests.tiny import write_tokenizer
from tests.unit.factories import WORLD

compat.apply()

from entrypoint.tune import nf4  # noqa: E402
from entrypoint.tune.methods import full_weights, method_of  # noqa: E402
from entrypoint.tune.worlds import Ranks  # noqa: E402

ALONE = Ranks(rank=0, size=1, device=torch.device("cpu"))
KINDS = ("llama3.2", "llama3.1", "gemma2", "phi4", "phi4-mini", "qwen2.5", "qwen3")
"""One of each layout: rows in torchtune's order or not, fused, tied, with biases, with builders of
our own."""


@pytest.fixture(scope="module", params=KINDS)
def card(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write_checkpoint(tmp_path_factory.mktemp("methods") / request.param, request.param)
    shards = find_shards(folder)
    return describe(request.param, folder, read_config(folder / "config.json"), shards)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 96, (2, 24), generator=torch.Generator().manual_seed(7))


def trained(card: Model, output: Path, **settings: Any) -> tuple[Any, Path]:
    """A model whose trained weights have moved, and the folder with what its method saves."""
    from torchtune.training import FullModelHFCheckpointer

    given = Settings(**settings)
    adapter = model_arguments(given)
    recipe = OmegaConf.create(
        {
            "model": {
                "_component_": card.lora_builder if adapter else card.builder,
                **card.arguments,
                "max_seq_len": 32,
                **adapter,
            },
            "quantizer": quantizer(given.method),
        }
    )
    method = method_of(recipe)
    both_ways = FullModelHFCheckpointer(
        checkpoint_dir=str(card.folder),
        checkpoint_files=list(card.shards),
        model_type=card.model_type,
        output_dir=str(output),
    )
    torch.manual_seed(1)
    model = method.build(recipe.model)
    method.prepare(model, both_ways.load_checkpoint()["model"], ALONE)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                # a magnitude is of the size of a row, an adapter starts at zero
                weight.add_(torch.randn_like(weight) * (0.3 if "magnitude" in name else 0.1))
    both_ways.save_checkpoint(method.artifacts(full_weights(model, ALONE)), epoch=0)
    return model.eval(), output / "epoch_0"


def loaded(folder: Path, kind: str, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    eager = {"attn_implementation": "eager"} if kind == "gemma2" else {}
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, **eager, **options
    ).eval()


def take_adapter(folder: Path) -> Path:
    """Move the adapter away from the merged weights, as collect does."""
    adapter = folder.parent / "adapter"
    adapter.mkdir()
    for path in folder.glob("adapter*"):
        path.rename(adapter / path.name)
    return adapter


@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "qat-lora"])
def test_merged_weights_and_peft_adapter_are_the_trained_model(
    method: str, card: Model, tmp_path: Path, ids: torch.Tensor
):
    from peft import PeftModel

    model, folder = trained(card, tmp_path, method=method)
    adapter = take_adapter(folder)
    if method == "qat-lora":
        round_no_more(model)
    with torch.no_grad():
        expected, base = model(ids), loaded(card.folder, card.reference)
        assert (expected - base(ids).logits).abs().max() > 0.1
        merged = loaded(folder, card.reference)
        torch.testing.assert_close(merged(ids).logits, expected, rtol=0, atol=2e-4)
        config = json.loads((adapter / "adapter_config.json").read_text())
        assert config["use_dora"] == (method == "dora")
        if method == "qlora":
            base.load_state_dict(unadapted(model, card, tmp_path / "base"))
        adapted = PeftModel.from_pretrained(base, adapter).eval()
        torch.testing.assert_close(adapted(ids).logits, expected, rtol=0, atol=2e-4)


def unadapted(model: Any, card: Model, folder: Path) -> dict[str, torch.Tensor]:
    """transformers' weights of the base model as it is in NF4."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("lora_b.weight"):
                weight.zero_()
    from torchtune.training import FullModelHFCheckpointer

    from entrypoint.tune.methods import Adapter

    both_ways = FullModelHFCheckpointer(
        str(card.folder), list(card.shards), card.model_type, output_dir=str(folder)
    )
    both_ways.load_checkpoint()
    settings = OmegaConf.create(model_arguments(Settings(method="qlora")))
    merged = Adapter(settings).artifacts(full_weights(model, ALONE))["model"]
    both_ways.save_checkpoint({"model": merged}, epoch=0)
    state: dict[str, torch.Tensor] = loaded(folder / "epoch_0", card.reference).state_dict()
    return state


def round_no_more(model: Any) -> None:
    from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer

    found = [module for module in model.modules() if isinstance(module, IntxFakeQuantizer)]
    assert found
    for module in found:
        module.enabled = False


@pytest.mark.parametrize("method", ["qat", "qat-lora"])
def test_what_training_saw_is_what_the_quantized_copy_computes(
    method: str, card: Model, tmp_path: Path, ids: torch.Tensor
):
    model, folder = trained(card, tmp_path, method=method)
    take_adapter(folder)
    write_tokenizer(folder)
    quantize(folder, Scheme(), WORLD, tmp_path / card.reference)
    copy = loaded(tmp_path / card.reference, card.reference)
    plain = loaded(folder, card.reference)
    with torch.no_grad():
        seen, quantized, unquantized = model(ids), copy(ids).logits, plain(ids).logits
    rounding = (quantized - unquantized).abs().mean()
    assert rounding > 0.02
    # an activation in the middle of two integers may go either way
    assert (seen - quantized).abs().mean() < 0.05 * rounding


def test_targets_choose_where_adapters_are(card: Model, tmp_path: Path, ids: torch.Tensor):
    tied = "lm_head.weight" not in card.tensors
    targets = ("mlp",) if tied else ("mlp", "output")
    model, folder = trained(card, tmp_path, lora_targets=targets, method="lora")
    adapted = {name.rsplit(".", 2)[0] for name, _ in model.named_parameters() if ".lora_" in name}
    assert {name.rsplit(".", 1)[-1] for name in adapted} == {"w1", "w2", "w3"} | (
        set() if tied else {"output"}
    )
    take_adapter(folder)
    with torch.no_grad():
        merged = loaded(folder, card.reference)(ids).logits
        torch.testing.assert_close(merged, model(ids), rtol=0, atol=2e-4)


def test_nf4_takes_what_its_blocks_promise(card: Model, tmp_path: Path):
    model, _ = trained(card, tmp_path, method="qlora")
    packed = [weight for weight in model.parameters() if isinstance(weight, nf4.NF4Tensor)]
    assert len(packed) == 7 * card.arguments["num_layers"]
    numbers = sum(weight.numel() for weight in packed)
    taken = sum(
        part.numel() * part.element_size()
        for weight in packed
        for part in (weight.quantized_data, weight.quantized_scalers, weight.quantization_factor)
    )
    # the scales of these small matrices are in fewer, larger parts
    assert taken / numbers == pytest.approx(NF4_BYTES, rel=0.01)


def test_a_matrix_that_nf4_cannot_take_stays_as_it_is():
    from torch import nn

    model = nn.Module()
    sizes = ((8, 9), (64, 64), (64, 64))
    model.layers = nn.ModuleList([nn.Linear(*size, bias=False) for size in sizes])
    nn.init.zeros_(model.layers[1].weight)
    model.requires_grad_(False)
    before = model.layers[0].weight
    assert nf4.quantize(model, 1, torch.device("cpu")) == ["layers.0"]
    assert model.layers[0].weight is before
    assert isinstance(model.layers[2].weight, nf4.NF4Tensor)
    assert not nf4.dequantized(model.layers[1].weight).any()
    odd = nn.Module()
    odd.layers = nn.ModuleList([nn.Linear(64, 65, bias=False)]).requires_grad_(False)
    assert nf4.quantize(odd, 2, torch.device("cpu")) == ["layers.0"]
