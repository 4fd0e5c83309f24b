"""`train tune`: torchtune's own recipes and configurations, run on a CPU."""

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from entrypoint.cli import run
from entrypoint.data.source import EMBEDDED_FOLDER
from tests.e2e.worlds import ONE_THREAD
from tests.tiny import VOCABULARY
from tests.unit.tune.test_native_tokenizer import write_sentencepiece

pytestmark = pytest.mark.e2e

SIZES = {
    "vocab_size": VOCABULARY, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 64,
    "intermediate_dim": 128, "max_seq_len": 512, "rope_base": 10_000, "scale_factor": 1,
    "tie_word_embeddings": True,
}  # fmt: skip
SHIPPED = Path(str(find_spec("recipes").origin)).parent / "configs"  # type: ignore[union-attr]
CANARY = "canary-word-71ab"
RECIPES = {
    "lora_finetune_single_device": "llama3_2/1B_lora_single_device",
    "lora_dpo_single_device": "llama2/7B_lora_dpo_single_device",
    "knowledge_distillation_single_device": "llama3_2/8B_to_1B_KD_lora_single_device",
    "lora_finetune_distributed": "llama3_2/1B_lora",
}


def tune(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "entrypoint", "tune", *map(str, arguments)),
        env=ONE_THREAD | {"HF_TOKEN": CANARY} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows for torchtune's data sets, and a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("stock")
    write_sentencepiece(folder / "tokenizer.model")
    rows = (EMBEDDED_FOLDER / "train.jsonl").read_text().splitlines()[:8]
    (folder / "sft.jsonl").write_text("\n".join(rows))
    pairs = EMBEDDED_FOLDER.parent / "preference" / "train.jsonl"
    found = [json.loads(line) for line in pairs.read_text().splitlines()[:8]]
    whole = [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in found]
    (folder / "pairs.json").write_text(json.dumps(whole))
    return folder


def configure(path: Path, recipe: str, model: Path, data: Path, output: Path) -> None:
    """Change what one has to change in a shipped configuration: model, data, sizes, device."""
    from omegaconf import OmegaConf

    config = OmegaConf.load(SHIPPED / f"{RECIPES[recipe]}.yaml")
    adapter = ("lora_attn_modules", "apply_lora_to_mlp", "lora_rank", "lora_alpha")
    lora = {name: config.model[name] for name in adapter}
    config.model = {"_component_": "torchtune.models.llama3_2.lora_llama3_2", **SIZES, **lora}
    checkpoint = {
        "checkpoint_dir": str(model), "checkpoint_files": ["model.safetensors"],
        "model_type": "LLAMA3_2",
    }  # fmt: skip
    config.checkpointer |= checkpoint
    if "teacher_model" in config:
        config.teacher_model = {"_component_": "torchtune.models.llama3_2.llama3_2", **SIZES}
        config.teacher_checkpointer |= checkpoint
    config.tokenizer = {
        "_component_": "torchtune.models.llama2.llama2_tokenizer",
        "path": str(data / "tokenizer.model"), "max_seq_len": 256,
    }  # fmt: skip
    config.dataset = (
        {
            "_component_": "torchtune.datasets.preference_dataset", "source": "json",
            "data_files": str(data / "pairs.json"), "split": "train",
            "column_map": {"chosen": "chosen", "rejected": "rejected"},
        }
        if "dpo" in recipe
        else {
            "_component_": "torchtune.datasets.chat_dataset", "source": "json", "split": "train",
            "data_files": str(data / "sft.jsonl"), "conversation_column": "messages",
            "conversation_style": "openai",
        }
    )  # fmt: skip
    config |= {
        "device": "cpu", "dtype": "fp32", "max_steps_per_epoch": 2, "batch_size": 2, "epochs": 1,
        "gradient_accumulation_steps": 1, "output_dir": str(output), "log_peak_memory_stats": False,
    }  # fmt: skip
    OmegaConf.save(config, path)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_shipped_recipe_trains_with_a_shipped_configuration(
    recipe: str, tiny_model: Path, data: Path, tmp_path: Path
):
    path, output = tmp_path / "mine.yaml", tmp_path / "out"
    configure(path, recipe, tiny_model, data, output)
    flags = ("--nproc_per_node", 2) if "distributed" in recipe else ()
    ended = tune("run", *flags, recipe, "--config", path, f"+note={CANARY}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (log,) = output.rglob("log_*.txt")
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["1", "2"]
    assert list(output.glob("epoch_0/model-*.safetensors"))
    assert "note: '***'" in ended.stdout or "note: ***" in ended.stdout
    assert CANARY not in ended.stdout + ended.stderr


QUANTIZER = {
    "_component_": "torchtune.training.quantization.Int8DynActInt4WeightQuantizer",
    "groupsize": 32,
}


@pytest.mark.parametrize(("method", "quantizer"), [("8da4w", QUANTIZER), ("nf4", None)])
def test_the_generate_recipe_answers_from_a_quantized_file_as_the_copys_model_does(
    method: str, quantizer: dict[str, object] | None, tiny_model: Path, tmp_path: Path
):
    """With torchtune's checkpointer and quantizer, as its configurations name them. It compiles for
    minutes, which changes no answer and is switched off.

    NF4 in the file and in the folder are two ways to quantize: there torchtune's own model answers
    what is expected."""
    import torch
    from omegaconf import OmegaConf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from entrypoint.tune import compat

    compat.apply()
    from torchtune.config import instantiate

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for parameter in model.parameters():
            # else each answer is one token again and again
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    copy = tmp_path / "copy"
    command = ["quantize", "--model", str(tmp_path / "model"), "--dtype", "fp32"]
    assert run([*command, "--method", method, "--output", str(copy)]) == 0
    file = f"model-{method}.pt"
    builder, arguments = "torchtune.models.llama3_2.llama3_2", {**SIZES, "norm_eps": 1e-6}
    of_file = {
        "_component_": "entrypoint.tune.nf4.of_file", "file": str(copy / file), "builder": builder,
    }  # fmt: skip
    changes = {
        "device": "cpu", "dtype": "fp32", "temperature": 0, "max_new_tokens": 8,
        "model": {**({"_component_": builder} if quantizer else of_file), **arguments},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelTorchTuneCheckpointer",
            "checkpoint_dir": str(copy), "checkpoint_files": [file],
            "model_type": "LLAMA3_2", "output_dir": str(tmp_path),
        },
        "tokenizer": {
            "_component_": "entrypoint.tune.tokenizer.PromptTokenizer", "path": str(copy),
        },
        "quantizer": quantizer,
        "prompt": {"system": None, "user": "Book Oslo."},
    }  # fmt: skip
    config = OmegaConf.load(SHIPPED / "generation.yaml")
    OmegaConf.save({**config, **changes}, tmp_path / "mine.yaml")
    ended = tune("run", "generate", "--config", tmp_path / "mine.yaml", TORCHDYNAMO_DISABLE="1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    tokenizer = AutoTokenizer.from_pretrained(copy)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Book Oslo."}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    if quantizer:
        quantized = AutoModelForCausalLM.from_pretrained(copy)
        answer = quantized.generate(**asked, max_new_tokens=8, do_sample=False)[0]
    else:
        plain = instantiate(OmegaConf.create({"_component_": builder, **arguments})).eval()
        plain.load_state_dict(torch.load(copy / file, weights_only=True), assign=True)
        answer = asked["input_ids"][0]
        with torch.no_grad():
            for _ in range(8):
                answer = torch.cat([answer, plain(answer[None])[0, -1].argmax()[None]])
    assert len(set(answer[asked["input_ids"].shape[1] :].tolist())) > 2
    assert tokenizer.decode(answer) in ended.stdout + ended.stderr


def test_a_configuration_is_copied(tmp_path: Path):
    name = RECIPES["lora_finetune_distributed"]
    copied = tune("cp", name, tmp_path / "mine.yaml")
    assert copied.returncode == 0, copied.stdout + copied.stderr
    assert (tmp_path / "mine.yaml").read_text() == (SHIPPED / f"{name}.yaml").read_text()


def test_a_signal_is_passed_on(tmp_path: Path):
    (tmp_path / "waits.py").write_text(
        "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(60)\n"
    )
    (tmp_path / "any.yaml").write_text("")
    process = subprocess.Popen(
        (sys.executable, "-m", "entrypoint", "tune", "run", "waits.py", "--config", "any.yaml"),
        cwd=tmp_path,
        env=ONE_THREAD | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted" in error
