"""`train sft --then eval,quantize` from end to end, in processes of its own, on a tiny model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from entrypoint import templates
from tests.e2e.starting import Ended, Train, in_a_process

pytestmark = pytest.mark.e2e

CANARIES = {"HF_TOKEN": "hf_canary_5e1f7a", "AZURE_CLIENT_SECRET": "canary-93b1c4d2"}
FILE_CANARY = "canary-44d0e7b9"
"""A secret that is in a file, not in the environment."""
TASK = """
task: places
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{messages[0].content}}}}"
doc_to_target: "{{{{messages[-1].content}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


def train(*arguments: object, **environment: str) -> Ended:
    return in_a_process(*arguments, **CANARIES, **environment)


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="module")
def rows_file(module_folder: Path) -> Path:
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Number {n}?"},
                {"role": "assistant", "content": "Yes"},
            ]
        }
        for n in range(16)
    ]
    path = module_folder / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def tasks_folder(module_folder: Path, rows_file: Path) -> Path:
    folder = module_folder / "tasks"
    folder.mkdir()
    (folder / "places.yaml").write_text(TASK.format(rows=rows_file))
    return folder


@pytest.fixture(scope="module")
def finished(module_folder: Path, tiny_model: Path, rows_file: Path, tasks_folder: Path) -> Any:
    """One whole run, looked at by several tests."""
    output = module_folder / "run"
    secrets = module_folder / "secrets"
    secrets.mkdir()
    (secrets / "MLFLOW_TRACKING_TOKEN").write_text(FILE_CANARY)
    ended = train(
        "sft", "--model", tiny_model, "--data", rows_file, "--output", output, "--max-seq-len", 128,
        "--batch-size", 4, "--epochs", 2, "--lr", 0.01, "--then", "quantize,eval",
        "--dtype", "fp32", "--tasks", "places", "--tasks-folder", tasks_folder, "--limit", 5,
        TRAIN_SECRETS=str(secrets),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return output, ended


def greedy(folder: Path, prompt: str) -> list[int]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        return model.generate(**ids, max_new_tokens=8, do_sample=False)[0].tolist()


def test_the_run_folder_is_the_designs(finished: Any):
    output, _ = finished
    found = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert {
        "manifest.json", "result.json", "recipe.yaml", "command.txt", "status.json",
        "logs/train.log", "logs/metrics.jsonl",
        "final/config.json", "final/tokenizer.json", "final/model.safetensors.index.json",
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
        "quantized/8da4w/model.safetensors", "quantized/8da4w/tokenizer.json",
        "eval/base.json", "eval/tuned.json", "eval/8da4w.json",
        "checkpoints/step_8/manifest.json",
    } <= found  # fmt: skip
    assert not [name for name in found if "partial" in name]
    assert not any("adapter" in name for name in found if name.startswith("final/"))


def test_result_and_manifest_have_their_keys(finished: Any):
    output, _ = finished
    result = json.loads((output / "result.json").read_text())
    assert result.keys() == {
        "version", "status", "objective", "method", "steps", "loss", "artifacts", "evaluation",
        "comparison", "gates",
    }  # fmt: skip
    assert result["steps"] == 8
    assert result["loss"]["last"] < result["loss"]["first"]
    assert result["evaluation"].keys() == {"base", "tuned", "8da4w"}
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest.keys() == {
        "version", "started", "settings", "seed", "world", "model", "teacher", "data", "recipe",
        "versions", "platform", "image", "git_revision", "executable", "directory",
    }  # fmt: skip
    assert manifest["data"]["train"]["rows"] == 16


def test_metrics_are_one_object_for_each_step(finished: Any):
    output, _ = finished
    lines = [
        json.loads(line) for line in (output / "logs" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert {"loss", "lr", "grad_norm"} <= lines[0].keys()
    assert list((output / "logs").glob("log_*.txt")), "torchtune's DiskLogger writes beside ours"


def test_no_file_is_named_that_is_elsewhere_in_the_end(finished: Any):
    _, ended = finished
    assert "== training, 8 steps" in ended.stdout
    assert "epoch_" not in ended.stdout + ended.stderr
    assert "log_" not in ended.stdout + ended.stderr


def test_evaluations_hold_every_sample(finished: Any):
    output, ended = finished
    evaluation = json.loads((output / "eval" / "tuned.json").read_text())
    samples = evaluation["samples"]["places"]
    assert len(samples) == 5
    assert samples[0]["target"] == "Yes"
    assert "<|im_start|>user\nNumber 0?<|im_end|>" in samples[0]["prompt"]
    for column in ("base", "tuned", "8da4w", "places/exact_match"):
        assert column in ended.stdout


def test_the_final_model_answers_as_torchtunes_own(finished: Any):
    """The same weights through torchtune's model and through transformers: the same greedy ids."""
    import torch
    from omegaconf import OmegaConf

    from entrypoint.tune import compat

    compat.apply()
    from torchtune import config, training

    output, _ = finished
    recipe = OmegaConf.load(output / "recipe.yaml")
    recipe.checkpointer.output_dir = str(output.parent / "unused")
    weights = config.instantiate(recipe.checkpointer).load_checkpoint()[training.MODEL_KEY]
    model = config.instantiate(recipe.model)
    model.load_state_dict(weights, strict=False)
    from safetensors.torch import load_file

    # torchtune's own conversion has no way back from PEFT's names, so the factors are put in here
    adapter = load_file(output / "adapter" / "adapter_model.safetensors")
    model.load_state_dict(from_peft(adapter, recipe.model), strict=False)
    model.eval()
    tokenizer = config.instantiate(recipe.tokenizer)
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(output / "final")
    ids = torch.tensor([[0, 5, 9, 300, 17]])
    with torch.no_grad():
        assert (model(ids) - exported(ids).logits).abs().max() < 1e-4
    for prompt in ("Number 3?", "Oslo"):
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer({"messages": messages}, inference=True)["tokens"]
        with torch.no_grad():
            for _ in range(8):
                ids = [*ids, model(torch.tensor([ids]))[0, -1].argmax().item()]
                if ids[-1] == tokenizer.pad_id:
                    break
        expected = greedy(output / "final", prompt)
        assert ids == expected[: len(ids)]


def from_peft(adapter: dict[str, Any], model: Any) -> dict[str, Any]:
    """PEFT's tensors under torchtune's names; rows of q and k go back to interleaved pairs."""
    names = {
        "self_attn": "attn", "o_proj": "output_proj", "gate_proj": "w1", "down_proj": "w2",
        "up_proj": "w3", "lora_A": "lora_a", "lora_B": "lora_b",
    }  # fmt: skip
    head_dim = model.embed_dim // model.num_heads
    found = {}
    for key, value in adapter.items():
        name = key.removeprefix("base_model.model.model.")
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if "q_proj.lora_b" in name or "k_proj.lora_b" in name:
            pairs = value.view(-1, 2, head_dim // 2, value.shape[-1])
            value = pairs.transpose(1, 2).reshape(value.shape)
        found[name] = value
    return found


def test_the_adapter_on_the_base_is_the_final_model(finished: Any, tiny_model: Path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    output, _ = finished
    ids = torch.tensor([[0, 5, 9, 300, 17]])
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        before = base(ids).logits.clone()
        adapted = PeftModel.from_pretrained(base, output / "adapter")(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(output / "final")(ids).logits
    assert (adapted - merged).abs().max() < 1e-4
    assert (before - merged).abs().max() > 1e-2, "training changed nothing"


def test_the_quantized_model_loads_without_us(finished: Any):
    output, _ = finished
    code = (
        "import sys; from transformers import AutoModelForCausalLM as M\n"
        "m = M.from_pretrained(sys.argv[1])\n"
        "kind = type(m.model.layers[0].self_attn.q_proj.weight).__name__\n"
        "import torch; print(kind, m(torch.tensor([[1, 2, 3]])).logits.shape)\n"
        "assert 'entrypoint' not in sys.modules"
    )
    folder = output / "quantized" / "8da4w"
    ended = subprocess.run(
        (sys.executable, "-c", code, str(folder)), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Intx" in ended.stdout
    assert "[1, 3, 512]" in ended.stdout


def test_no_secret_appears_anywhere(finished: Any):
    output, ended = finished
    written = [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    for secret in (*CANARIES.values(), FILE_CANARY):
        assert secret not in ended.stdout + ended.stderr
        assert not any(secret.encode() in content for content in written)


def test_a_second_run_into_the_same_folder_changes_nothing(
    finished: Any, tiny_model: Path, rows_file: Path, train_here: Train
):
    output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    again = ("--model", tiny_model, "--data", rows_file, "--max-seq-len", 128, "--batch-size", 4)
    for command in (
        ("sft", *again, "--output", output),
        ("quantize", "--model", output),
        ("eval", "--model", output, "--label", "tuned"),
    ):
        code, said = train_here(*command)
        assert code == 3
        assert "exists already" in said or "already holds a run" in said
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_a_run_is_scored_again_under_another_label(
    finished: Any, tasks_folder: Path, train_here: Train
):
    output, _ = finished
    code, said = train_here(
        "eval", "--model", output, "--tasks", "places", "--tasks-folder", tasks_folder,
        "--limit", 2, "--label", "again",
    )  # fmt: skip
    assert code == 0, said
    assert json.loads((output / "eval" / "again.json").read_text())["rows"] == {"places": 2}


def test_all_weights_can_be_trained_from_variables_and_shards(tmp_path: Path, rows_file: Path):
    from tests.tiny import write_tiny_model

    model = write_tiny_model(tmp_path / "m", tied=False, shards=True)
    recipe = Path(shutil.copy(templates.shipped("sft"), tmp_path / "mine.yaml.j2"))
    before = recipe.read_bytes()
    ended = train(
        "sft",
        TRAIN_MODEL=str(model),
        TRAIN_DATA=str(rows_file),
        TRAIN_OUTPUT=str(tmp_path / "run"),
        TRAIN_METHOD="full",
        TRAIN_RECIPE=str(recipe),
        TRAIN_MAX_SEQ_LEN="128",
        TRAIN_MAX_STEPS="2",
        TRAIN_BATCH_SIZE="4",
        TRAIN_SET="optimizer.weight_decay=0.5 +optimizer.eps=1e-6",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert recipe.read_bytes() == before
    written = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "weight_decay: 0.5" in written
    assert "eps: 1.0e-06" in written
    assert not (tmp_path / "run" / "adapter").exists()
    assert greedy(tmp_path / "run" / "final", "Oslo")


def test_7_training_that_fails_says_where_to_look(
    tmp_path: Path, tiny_model: Path, rows_file: Path
):
    ended = train(
        "sft", "--model", tiny_model, "--data", rows_file, "--output", tmp_path / "run",
        "--max-seq-len", 128, "--set", "loss._component_=torch.nn.NoSuchLoss",
    )  # fmt: skip
    assert ended.returncode == 7
    assert "NoSuchLoss" in ended.stdout
    assert str(tmp_path / "run" / "logs" / "train.log") in ended.stderr
    assert "NoSuchLoss" in (tmp_path / "run" / "logs" / "train.log").read_text()
