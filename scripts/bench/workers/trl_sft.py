"""TRL and PEFT: one supervised run. Runs in TRL's own environment.

python trl_sft.py JOB.json
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from notes import Notes
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

TARGETS = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Steps(TrainerCallback):
    """Notes the end of each step."""

    def __init__(self, folder: str) -> None:
        self.notes = Notes(folder)

    def on_log(self, args: object, state: object, control: object, logs: dict, **_: object) -> None:
        if "loss" in logs:
            self.notes.note(float(logs["loss"]))


class InOrder(SFTTrainer):
    """Takes the rows as they come, so that all contestants make the same steps."""

    def _get_train_sampler(self, *_: object) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    lines = Path(job["tokens"]).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[job["dtype"]]
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype)
    trainer = InOrder(
        model=model,
        args=SFTConfig(
            output_dir=job["folder"],
            max_steps=job["steps"],
            per_device_train_batch_size=job["rows_per_step"],
            learning_rate=job["lr"],
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=job["dtype"] == "bf16",
            gradient_checkpointing=False,  # faster
            dataset_num_proc=None,
        ),
        train_dataset=Dataset.from_list(
            [{"input_ids": row["tokens"], "labels": row["labels"]} for row in rows]
        ),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=LoraConfig(
            r=job["rank"], lora_alpha=job["alpha"], target_modules=TARGETS, task_type="CAUSAL_LM"
        ),
        callbacks=[Steps(job["folder"])],
    )
    trainer.train()


if __name__ == "__main__":
    main()
