"""entrypoint.quantization.folder: what is refused before any work, and torchao's configurations."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.errors import ModelError, SettingsError
from entrypoint.quantization.folder import check, size_bytes
from entrypoint.quantization.model import configuration, quantizer
from entrypoint.quantizing import remarks
from entrypoint.run_folder import RunFolder
from entrypoint.schemes import METHODS, Scheme
from tests.unit.factories import WORLD


def test_a_good_model_passes(tiny_model: Path, tmp_path: Path):
    check(tiny_model, Scheme(), WORLD, tmp_path / "out")


def test_an_output_that_exists_is_refused(tiny_model: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="exists already") as caught:
        check(tiny_model, Scheme(), WORLD, tmp_path)
    assert "TRAIN_QUANTIZE_OUTPUT" in str(caught.value)


def test_a_quantized_model_is_refused(tiny_model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {}}))
    with pytest.raises(ModelError, match="quantized already"):
        check(folder, Scheme(), WORLD, tmp_path / "out")


def test_the_layers_of_the_weight_files_are_looked_at(tiny_model: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="64 columns, not a multiple of the group size 128"):
        check(tiny_model, Scheme(group_size=128), WORLD, tmp_path / "out")


def test_size_counts_weights_only(tmp_path: Path):
    (tmp_path / "a.safetensors").write_bytes(b"12345")
    (tmp_path / "b.safetensors").write_bytes(b"123")
    (tmp_path / "config.json").write_bytes(b"{}")
    assert size_bytes(tmp_path) == 8


@pytest.mark.parametrize("method", [method for method in METHODS if method != "nf4"])
def test_every_method_but_nf4_has_a_configuration_of_torchao(method):
    from transformers import TorchAoConfig

    for device in ("cpu", "cuda"):
        world = replace(WORLD, device=device, dtype="bf16")
        written = TorchAoConfig(configuration(Scheme(method=method, group_size=64), world))
        kind = written.to_dict()["quant_type"]["default"]["_type"]
        bits = "4" if "4" in method else "8"
        assert bits in kind or "Intx" in kind


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bf16", "bfloat16"), ("fp32", "float32")])
def test_nf4_has_the_configuration_that_others_know_it_by(dtype, torch_dtype):
    world = replace(WORLD, dtype=dtype)
    found = quantizer(Scheme(method="nf4"), world, {"model.layers.1.mlp.up_proj", "lm_head"})
    written = found.quantization_config.to_dict()
    assert written["quant_method"] == "bitsandbytes"
    assert (written["load_in_4bit"], written["load_in_8bit"]) == (True, False)
    assert written["bnb_4bit_quant_type"] == "nf4"
    assert written["bnb_4bit_use_double_quant"] is True
    assert written["bnb_4bit_quant_storage"] == "uint8"
    assert written["bnb_4bit_compute_dtype"] == torch_dtype
    assert written["llm_int8_skip_modules"] == ["lm_head", "model.layers.1.mlp.up_proj"]


def test_a_layer_in_nf4_holds_what_a_bias_is_read_into_later():
    import torch
    from torch import nn

    from entrypoint.quantization import nf4

    torch.manual_seed(0)
    model = nn.ModuleDict({"one": nn.Linear(128, 64), "other": nn.Linear(64, 64, bias=False)})
    exact = model["one"].weight.detach().clone()
    bias = model["one"].bias
    for name in model:
        nf4.put(model, name, nf4.to_nearest(model[name].weight))
    assert model["one"].bias is bias
    assert model["other"].bias is None
    packed = model["one"].weight
    # two weights a byte, and a byte for the scale of 64 of them
    assert (packed.dtype, packed.numel()) == (torch.uint8, 64 * 128 // 2)
    assert packed.quant_state.absmax.dtype == torch.uint8
    assert packed.quant_state.absmax.numel() == 64 * 128 // 64
    unpacked = model["one"](torch.eye(128)).detach() - bias.detach()
    assert 0 < (unpacked.T - exact).norm() / exact.norm() < 0.1


def test_nf4_rounded_by_rows_is_what_bitsandbytes_unpacks_and_errs_less_on_them():
    import torch

    from entrypoint.quantization import nf4
    from entrypoint.quantization.rounding import known

    torch.manual_seed(0)
    weight = 0.02 * torch.randn(64, 192, dtype=torch.bfloat16)
    inputs = torch.randn(600, 20) @ torch.randn(20, 192) + 0.5 * torch.randn(600, 192)
    given = known(inputs.T @ inputs / len(inputs))
    by_rows, to_nearest = nf4.by_rows(weight, given), nf4.to_nearest(weight)
    assert by_rows.data.shape == to_nearest.data.shape
    assert by_rows.quant_state.absmax.dtype == torch.uint8
    answers = [inputs @ nf4.unpacked(one).float().T for one in (by_rows, to_nearest)]
    exact = inputs @ weight.float().T
    errors = [float((one - exact).norm()) for one in answers]
    assert nf4.unpacked(by_rows).dtype == torch.bfloat16
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize(
    ("method", "scheme", "says"),
    [
        ("lora", Scheme(), []),
        ("qat", Scheme(), ["to be rounded so: 8da4w"]),
        ("qat-lora", Scheme(group_size=64), ["rounds otherwise"]),
        ("qat", Scheme(method="int8-dynamic"), ["rounds otherwise"]),
    ],
)
def test_a_run_trained_for_quantization_says_whether_the_copy_rounds_so(
    tmp_path: Path, method: str, scheme: Scheme, says: list[str]
):
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": {"method": method}}))
    found = remarks(RunFolder(root=tmp_path), scheme)
    assert len(found) == len(says)
    assert all(part in line for part, line in zip(says, found, strict=True))
