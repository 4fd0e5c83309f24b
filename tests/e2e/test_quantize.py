"""`train quantize`: every method of a CPU, loaded by transformers and torchao alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.cli import run
from entrypoint.errors import ExitCode
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.e2e

METHODS = ("8da4w", "int8-weight-only", "int8-dynamic", "int4-weight-only")
LOADING = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

def factors(weight):
    found = getattr(weight, "act_pre_scale", None)
    return None if found is None else found.flatten().tolist()

found = {}
ids = torch.arange(2, 40)[None]
reference = AutoModelForCausalLM.from_pretrained(sys.argv[1])(ids).logits
for folder in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    kinds = {type(layer.weight).__name__ for layer in model.model.layers.modules()
             if isinstance(layer, torch.nn.Linear)}
    logits = model(ids).logits
    error = (logits - reference).norm() / reference.norm()
    found[folder] = {
        "kinds": sorted(kinds), "head": type(model.lm_head.weight).__name__,
        "first": type(model.model.layers[0].mlp.down_proj.weight).__name__,
        "factors": factors(model.model.layers[0].mlp.down_proj.weight),
        "error": float(error), "dtype": str(model.dtype),
        "answer": len(AutoTokenizer.from_pretrained(folder)("Book Oslo.").input_ids),
        "eos": model.generation_config.eos_token_id,
    }
assert not [name for name in sys.modules if name.startswith(("entrypoint", "torchtune"))]
print(json.dumps(found))
"""


def load_elsewhere(reference: Path, *folders: Path) -> list[dict[str, object]]:
    ended = subprocess.run(
        (sys.executable, "-c", LOADING, reference, *folders),
        capture_output=True, text=True, check=False, cwd=reference,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    return [found[str(folder)] for folder in folders]


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In several files, with an output head of its own."""
    folder = tmp_path_factory.mktemp("untied") / "model"
    return write_tiny_model(folder, tied=False, shards=True)


def test_all_methods_are_loaded_by_transformers_and_torchao_alone(
    tiny_model: Path, untied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for method in METHODS:
        command = ["quantize", "--method", method, "--dtype", "fp32"]
        for name, model in (("tied", tiny_model), ("untied", untied)):
            output = str(tmp_path / f"{method}-{name}")
            assert run([*command, "--model", str(model), "--output", output]) == 0
    assert "quantized model: " in capsys.readouterr().out
    everything = load_elsewhere(untied, *(tmp_path / f"{method}-untied" for method in METHODS))
    everything += load_elsewhere(tiny_model, *(tmp_path / f"{method}-tied" for method in METHODS))
    for method, found in zip(METHODS * 2, everything, strict=True):
        assert found["kinds"] == ["IntxUnpackedToInt8Tensor" if "4" in method else "Int8Tensor"]
        assert found["head"] == "Parameter"
        assert found["dtype"] == "torch.float32"
        assert found["answer"] > 2
        assert found["eos"] == 1
        assert 0 < found["error"] < (0.2 if "4" in method else 0.03)


def test_factors_of_smoothing_are_loaded_with_the_weights(
    tiny_model: Path, rows: Path, tmp_path: Path
):
    command = ["quantize", "--model", str(tiny_model), "--method", "int8-dynamic"]
    command += ["--dtype", "fp32", "--output", str(tmp_path / "copy")]
    assert run([*command, "--calibrate", str(rows), "--calibration-rows", "4"]) == 0
    (found,) = load_elsewhere(tiny_model, tmp_path / "copy")
    factors = found["factors"]
    assert isinstance(factors, list)
    assert len(set(factors)) > 1
    # without the factors, weights that were divided by them would answer anything
    assert 0 < found["error"] < 0.03


def test_layers_that_are_named_stay_as_they_are(untied: Path, tmp_path: Path):
    command = ["quantize", "--model", str(untied), "--group-size", "64", "--dtype", "bf16"]
    skip = ["--skip", "model.layers.0.*"]
    assert run([*command, *skip, "--output", str(tmp_path / "out")]) == 0
    (found,) = load_elsewhere(untied, tmp_path / "out")
    assert found["kinds"] == ["IntxUnpackedToInt8Tensor", "Parameter"]
    assert (found["first"], found["head"]) == ("Parameter", "IntxUnpackedToInt8Tensor")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["modules_to_not_convert"][0] == "model.layers.0.mlp.down_proj"
    assert config["quant_type"]["default"]["_data"]["weight_granularity"]["_data"] == {
        "group_size": 64
    }
    assert found["dtype"] == "torch.bfloat16"


@pytest.mark.parametrize("method", ["fp8", "nf4"])
def test_what_cannot_be_run_is_refused_before_the_model_is_looked_for(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["quantize", "--method", method, "--model", str(tmp_path / "none"), "--device", "cpu"]
    assert run(command) == ExitCode.SETTINGS
    error = capsys.readouterr().err.lower()
    assert method in error
    assert "to do: use int" in error


def test_weights_that_the_model_lacks_leave_nothing_behind(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    command = ["quantize", "--model", str(folder), "--output", str(tmp_path / "out")]
    assert run(command) == ExitCode.MODEL
    assert "have no model.layers.2." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
