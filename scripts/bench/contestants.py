"""How each contestant is started, and what its run left behind."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.bench.tasks import ALPHA, ATTENTION, LEARNING_RATE, LONGEST, OURS, RANK, Job

WORKERS = Path(__file__).with_name("workers")
RECIPES = {
    "sft": "lora_finetune_single_device",
    "dpo": "lora_dpo_single_device",
    "kd": "knowledge_distillation_single_device",
}
LORA = {
    "lora_attn_modules": list(ATTENTION),
    "apply_lora_to_mlp": True,
    "lora_rank": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.0,
}
Steps = list[dict[str, float]]
"""Of a step's end: `time` and `cpu` in seconds, `peak` of resident memory in bytes, `loss`."""


def command(peer: str, python: Path, job: Job) -> tuple[str, ...]:
    """Write what the contestant reads into the job's folder; what to run, in that folder."""
    if peer == OURS:
        return _ours(job)
    if peer == "torchtune":
        config = job.folder / "recipe.yaml"
        config.write_text(json.dumps(_stock(job)))  # JSON is YAML
        recipe = RECIPES[job.task.objective]
        return (
            str(python), "-m", "torchtune._cli.tune", "run", recipe, "--config", str(config),
        )  # fmt: skip
    settings = job.folder / "job.json"
    settings.write_text(
        json.dumps(
            {
                "steps": job.steps,
                "rows_per_step": job.task.rows_per_step,
                "dtype": job.task.dtype,
                "model": str(job.model),
                "tokens": str(job.tokens),
                "folder": str(job.folder),
                "rank": RANK,
                "alpha": ALPHA,
                "lr": LEARNING_RATE,
            }
        )
    )
    return (str(python), str(WORKERS / f"{peer}_{job.task.objective}.py"), str(settings))


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables of a contestant: the user's own, and no network."""
    own = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    return {**environ, **own, "PYTHONPATH": str(WORKERS)}


def steps_of(peer: str, job: Job) -> Steps:
    """What the run noted, one entry before the first step and one after each."""
    folder = job.folder / "run" / "logs" if peer == OURS else job.folder
    found: Steps = json.loads((folder / "steps.json").read_text())
    return found


def _ours(job: Job) -> tuple[str, ...]:
    objective = job.task.objective
    # the stock recipe's loss, of a teacher that is a model of its own there as well
    teacher = ("--teacher", str(job.model), "--alpha", "0.5") if objective == "kd" else ()
    return (
        str(Path(sys.executable).with_name("train")), objective,
        "--model", str(job.model), "--data", str(job.rows), *teacher,
        "--method", "lora", "--device", "cpu", "--dtype", job.task.dtype,
        "--batch-size", str(job.task.rows_per_step), "--max-steps", str(job.steps),
        "--max-seq-len", str(LONGEST), "--lr", str(LEARNING_RATE),
        "--set", "shuffle=false", "--set", "lr_scheduler.num_warmup_steps=0",
        "--set", "metric_logger.also=logger.StepLogger", "--output", str(job.folder / "run"),
    )  # fmt: skip


def _stock(job: Job) -> dict[str, Any]:
    """A recipe of torchtune's, with the settings of its own configurations."""
    facts = json.loads((job.model / "config.json").read_text())
    sizes = {
        "vocab_size": facts["vocab_size"],
        "num_layers": facts["num_hidden_layers"],
        "num_heads": facts["num_attention_heads"],
        "num_kv_heads": facts["num_key_value_heads"],
        "embed_dim": facts["hidden_size"],
        "intermediate_dim": facts["intermediate_size"],
        "max_seq_len": LONGEST,
        "norm_eps": facts["rms_norm_eps"],
        "rope_base": int((facts.get("rope_parameters") or facts)["rope_theta"]),
        "scale_factor": 1,
        "tie_word_embeddings": True,
    }
    checkpointer = {
        "_component_": "torchtune.training.FullModelHFCheckpointer",
        "checkpoint_dir": str(job.model),
        "checkpoint_files": ["model.safetensors"],
        "output_dir": str(job.folder),
        "model_type": "LLAMA3_2",
    }
    recipe = {
        "model": {"_component_": "torchtune.models.llama3_2.lora_llama3_2", **sizes, **LORA},
        "tokenizer": {"_component_": "torchtune_parts.Tokenizer", "pad_id": 0},
        "dataset": {"_component_": "torchtune_parts.Rows", "path": str(job.tokens)},
        "checkpointer": checkpointer,
        "resume_from_checkpoint": False,
        "save_adapter_weights_only": True,
        "seed": 42,
        "shuffle": False,
        "epochs": 1,
        "max_steps_per_epoch": job.steps,
        "batch_size": job.task.rows_per_step,
        "gradient_accumulation_steps": 1,
        "optimizer": {
            "_component_": "torch.optim.AdamW",
            "fused": True,
            "lr": LEARNING_RATE,
            "weight_decay": 0.01,
        },
        "lr_scheduler": {
            "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
            "num_warmup_steps": 0,
        },
        "clip_grad_norm": 1.0,
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "metric_logger": {
            "_component_": "logger.StepLogger",
            "log_dir": str(job.folder),
        },
        "log_every_n_steps": 1,
        "log_peak_memory_stats": False,
        "device": "cpu",
        "dtype": job.task.dtype,
        "compile": False,
        "enable_activation_checkpointing": False,
        "enable_activation_offloading": False,
        "output_dir": str(job.folder),
    }
    if job.task.objective == "dpo":
        recipe["loss"] = {"_component_": "torchtune.rlhf.loss.DPOLoss", "beta": 0.1}
    if job.task.objective == "kd":
        recipe |= {
            "teacher_model": {"_component_": "torchtune.models.llama3_2.llama3_2", **sizes},
            "teacher_checkpointer": checkpointer,
            "kd_loss": {"_component_": "torchtune.modules.loss.ForwardKLWithChunkedOutputLoss"},
            "kd_ratio": 0.5,
        }
    return recipe


def cores() -> int:
    return len(os.sched_getaffinity(0))
