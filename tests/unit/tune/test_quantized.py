"""entrypoint.tune.quantized: what torchtune reads back."""

from enum import Enum
from pathlib import Path

import pytest
import torch
from torchao.dtypes.nf4tensor import NF4Tensor

from entrypoint.data.writing import RowFile
from entrypoint.quantization import nf4
from entrypoint.quantization.folder import quantize
from entrypoint.quantization.packed import Packed
from entrypoint.quantization.samples import Calibration
from entrypoint.schemes import QuantizationMethod, Scheme
from entrypoint.topology import World
from entrypoint.tune.quantized import taken
from tests.recipes import few_rows
from tests.tiny import write_tiny_model

WORLD = World(device="cpu", devices=1, dtype="fp32", cores=1)


@pytest.mark.parametrize(
    ("method", "by_rows"),
    [
        ("8da4w", False),
        ("int8-weight-only", False),
        ("int8-dynamic", True),
        ("nf4", False),
        ("nf4", True),
    ],
)
def test_torchtunes_model_with_the_file_answers_as_transformers_does(
    method: QuantizationMethod, by_rows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its rows of q and k are in another order, and an output head of its own is not quantized.
    Columns, and what their inputs are multiplied by, are in the same.

    NF4's scales are rounded twice, by bitsandbytes and by torchao, and differ a little: by less
    than a tenth of what quantizing changes."""
    from transformers import AutoModelForCausalLM

    from entrypoint.models.card import describe, read_config
    from entrypoint.models.weights import find_shards
    from entrypoint.tune import compat

    compat.apply()
    from omegaconf import OmegaConf
    from torchtune.config import instantiate

    folder = write_tiny_model(tmp_path / "model", hidden=128, tied=False)
    copy = tmp_path / "copy"
    path = Path(few_rows(tmp_path / "rows", train=4)) / "train.jsonl"
    rows = RowFile(path=path, rows=4, sha256="0" * 64, longest=400)
    samples = Calibration(reference="bookings", file=rows) if by_rows else None
    # as Debian 12's Python has it
    by_name = lambda self, _: (getattr, (type(self), self.name))  # noqa: E731
    monkeypatch.setattr(Enum, "__reduce_ex__", by_name)
    quantize(folder, Scheme(method=method), WORLD, copy, samples)
    (file,) = copy.glob("*.pt")
    assert file.name == f"model-{method}.pt"
    card = describe("it", folder, read_config(folder / "config.json"), find_shards(folder))
    model = instantiate(
        OmegaConf.create({"_component_": card.builder, **card.arguments, "max_seq_len": 256})
    )
    missing = model.load_state_dict(torch.load(file, weights_only=True), assign=True)
    assert not missing.missing_keys
    assert not missing.unexpected_keys
    quantized = model.layers[0].attn.q_proj.weight
    assert type(quantized) is not torch.nn.Parameter
    assert isinstance(quantized, NF4Tensor) == (method == "nf4")
    assert type(model.output.weight) is torch.nn.Parameter
    assert (getattr(quantized, "act_pre_scale", None) is not None) == (method == "int8-dynamic")
    tokens = torch.arange(3, 43)[None]
    # with gradients: without them bitsandbytes multiplies in bf16 where a CPU can
    expected = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)(tokens).logits
    with torch.no_grad():
        found = model.eval()(tokens)
        if method != "nf4":
            torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-3)
            return
        exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
        assert 0 < (found - expected).norm() < 0.1 * (expected - exact).norm()


def test_torchao_unpacks_what_bitsandbytes_packed_and_its_rows_can_be_ordered_anew():
    torch.manual_seed(0)
    weight = torch.randn(96, 192) * torch.rand(96, 1)
    linear = torch.nn.ModuleDict({"one": torch.nn.Linear(192, 96, bias=False)})
    packed = nf4.to_nearest(weight)
    nf4.put(linear, "one", packed)
    ((_, found),) = nf4.weights(linear)
    assert isinstance(found, Packed)
    assert found.shape == weight.shape
    order = torch.randperm(96)
    expected = nf4.unpacked(packed)
    for rows in (torch.arange(96), order):
        again = taken(found, rows)
        assert isinstance(again, NF4Tensor)
        assert torch.equal(again.quantized_data.view(96, -1), packed.data.view(96, -1)[rows])
        # its table has 4 digits, and scales of 8 bits are rounded once more
        error = again.to(torch.float32) - expected[rows]
        assert error.norm() < 0.01 * expected.norm()


def test_a_layer_that_is_left_alone_is_in_the_file_as_it_is(tmp_path: Path):
    folder = write_tiny_model(tmp_path / "model")
    skip = ("*.0.self_attn.q_proj", "*.down_proj")
    quantize(folder, Scheme(method="nf4", skip=skip), WORLD, tmp_path / "copy")
    weights = torch.load(tmp_path / "copy" / "model-nf4.pt", weights_only=True)
    packed = {name for name, weight in weights.items() if isinstance(weight, NF4Tensor)}
    parts = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.output_proj", "mlp.w1", "mlp.w3")
    expected = {f"layers.{layer}.{part}.weight" for layer in (0, 1) for part in parts}
    assert packed == expected - {"layers.0.attn.q_proj.weight"}
