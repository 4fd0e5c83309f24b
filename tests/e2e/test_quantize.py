"""`train quantize`: every method of a CPU, loaded by transformers and its quantizers alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.cli import run
from entrypoint.errors import ExitCode
from entrypoint.models.card import TORCH_DTYPE
from entrypoint.schemes import Scheme
from entrypoint.settings import Dtype
from entrypoint.topology import World
from tests.e2e.starting import Train
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.e2e

KINDS = {
    "8da4w": "IntxUnpackedToInt8Tensor",
    "int8-weight-only": "Int8Tensor",
    "int8-dynamic": "Int8Tensor",
    "int4-weight-only": "IntxUnpackedToInt8Tensor",
    "nf4": "Params4bit",
}
"""What holds the weights of a method in memory."""
METHODS = tuple(KINDS)
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
        "error": float(error), "dtype": str(model.dtype), "logits": logits.flatten().tolist(),
        "bytes": sum(layer.weight.nbytes for layer in model.model.layers.modules()
                     if isinstance(layer, torch.nn.Linear)),
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


def test_all_methods_are_loaded_by_transformers_and_its_quantizers_alone(
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
        assert found["kinds"] == [KINDS[method]]
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


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_nf4_is_packed_and_answers_elsewhere_as_the_model_that_was_saved(
    untied: Path, tmp_path: Path, dtype: Dtype
):
    import torch

    from entrypoint.quantization.model import load

    command = ["quantize", "--model", str(untied), "--method", "nf4", "--dtype", dtype]
    skip = ["--skip", "model.layers.0.*", "--skip", "*.up_proj"]
    assert run([*command, *skip, "--output", str(tmp_path / "out")]) == 0
    (found,) = load_elsewhere(untied, tmp_path / "out")
    assert found["kinds"] == ["Parameter", "Params4bit"]
    # the head is not named, and has weights of its own
    assert (found["first"], found["head"]) == ("Parameter", "Params4bit")
    assert found["dtype"] == f"torch.{TORCH_DTYPE[dtype]}"
    record = json.loads((tmp_path / "out" / "quantization.json").read_text())
    assert (record["method"], record["group_size"]) == ("nf4", None)
    world = World(device="cpu", devices=1, dtype=dtype, cores=1)
    saved = load(untied, Scheme(method="nf4"), world, record["left_alone"])
    expected = saved(torch.arange(2, 40)[None]).logits.detach().flatten().float()
    torch.testing.assert_close(torch.tensor(found["logits"]), expected, rtol=0, atol=1e-5)
    # half a byte for each weight of the second layer, but for one matrix
    layer, matrix = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128, 64 * 128
    element = 4 if dtype == "fp32" else 2
    assert found["bytes"] == (layer + matrix) * element + (layer - matrix) / 2


def test_nf4_names_a_layer_that_its_blocks_do_not_divide_and_does_without_it_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # all matrices have 96 columns but down_proj, which has 192
    odd = write_tiny_model(tmp_path / "odd", hidden=96)
    command = ["quantize", "--method", "nf4", "--model", str(odd), "--dtype", "fp32"]
    command += ["--output", str(tmp_path / "out")]
    assert run(command) == ExitCode.MODEL
    error = " ".join(capsys.readouterr().err.split())
    assert "gate_proj has 96 columns, not a multiple of NF4's block of 64" in error
    assert "--skip model.layers.0.mlp.gate_proj" in error
    skip = [f"--skip=*.{name}_proj" for name in ("gate", "up", "q", "k", "v", "o")]
    assert run([*command, *skip]) == 0
    (found,) = load_elsewhere(odd, tmp_path / "out")
    assert (found["kinds"], found["first"]) == (["Parameter", "Params4bit"], "Params4bit")
    assert 0 < found["error"] < 0.2


def test_nf4_takes_no_group_size_and_rows_to_round_by(
    tiny_model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["quantize", "--method", "nf4", "--model", str(tiny_model), "--device", "cpu"]
    command += ["--output", str(tmp_path / "out")]
    assert run([*command, "--group-size", "32"]) == ExitCode.SETTINGS
    assert "nf4 has one scale for each 64 weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*command, "--calibrate", str(rows), "--calibration-rows", "4"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rounding by what 4 rows" in said
    assert "(GPTQ)" in said
    record = json.loads((tmp_path / "out" / "quantization.json").read_text())
    assert (record["method"], record["rounding"]) == ("nf4", "gptq")
    (by_rows,) = load_elsewhere(tiny_model, tmp_path / "out")
    assert by_rows["first"] == "Params4bit"
    assert 0 < by_rows["error"] < 0.2


def test_a_runs_copy_in_nf4_is_scored_compared_and_asked_as_any_other(
    tiny_model: Path, rows: Path, tmp_path: Path, train_here: Train
):
    data, output = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    lines = rows.read_text().splitlines(keepends=True)
    (data / "train.jsonl").write_text("".join(lines[:8]))
    (data / "eval.jsonl").write_text("".join(lines[8:]))
    code, said = train_here(
        "sft", "--model", tiny_model, "--data", data, "--output", output, "--max-steps", 1,
        "--dtype", "fp32", "--then", "quantize,eval", "--quantize-method", "nf4",
        "--limit", 2,
    )  # fmt: skip
    assert code == 0, said
    copy = output / "quantized" / "nf4"
    assert sorted(path.suffix for path in copy.glob("model*")) == [".pt", ".safetensors"]
    tuned, quantized = (
        json.loads((output / "eval" / f"{name}.json").read_text()) for name in ("tuned", "nf4")
    )
    # bitsandbytes holds two weights in a number
    assert quantized["model"]["parameters"] == tuned["model"]["parameters"]
    assert quantized["model"]["weights_bytes"] < 0.5 * tuned["model"]["weights_bytes"]
    (name,) = (name for name in tuned["scores"] if name.endswith("/loss"))
    assert 0 < abs(quantized["scores"][name] - tuned["scores"][name]) < 0.1
    assert "nf4" in json.loads((output / "compare.json").read_text())["models"]
    assert "nf4" in (output / "report.html").read_text()
    asked = ("--prompt", "Book Oslo.", "--max-new-tokens", 4, "--dtype", "fp32")
    code, said = train_here("chat", "--model", copy, *asked)
    assert code == 0, said
    code, said = train_here("export", "--model", copy, "--to", "gguf", "--output", tmp_path / "no")
    assert code == ExitCode.MODEL
    assert "quantized already" in said
    code, said = train_here("quantize", "--model", copy, "--output", tmp_path / "no")
    assert code == ExitCode.MODEL
    assert "quantized already" in said


def test_what_cannot_be_run_is_refused_before_the_model_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["quantize", "--method", "fp8", "--model", str(tmp_path / "none"), "--device", "cpu"]
    assert run(command) == ExitCode.SETTINGS
    error = capsys.readouterr().err
    assert "fp8" in error
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
