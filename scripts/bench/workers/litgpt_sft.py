"""LitGPT: one supervised run. Runs in LitGPT's own environment.

python litgpt_sft.py JOB.json
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import lightning
import litgpt.finetune.lora
import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data.base import DataModule, get_sft_collate_fn
from litgpt.prompts import Default
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from notes import Notes
from torch.utils.data import DataLoader

NAME = "SmolLM2-135M-Instruct"
"""LitGPT's configuration that the converted weights are given."""


class Rows(DataModule):
    """Rows that are tokens already, in order."""

    def __init__(self, rows: list[dict[str, list[int]]], rows_per_step: int) -> None:
        super().__init__()
        self.prompt_style = Default()
        self.rows_per_step = rows_per_step
        self.samples = [
            {
                "input_ids": torch.tensor(row["tokens"]),
                "labels": torch.tensor(row["labels"]),
                "token_counts": dict.fromkeys(
                    ("raw", "raw_plus_prompt_template"), len(row["tokens"])
                ),
            }
            for row in rows
        ]

    def connect(self, *_: Any, **__: Any) -> None:
        pass

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.samples)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.samples[:1])

    def _loader(self, samples: list[Any]) -> DataLoader:
        collate = get_sft_collate_fn()
        return DataLoader(samples, batch_size=self.rows_per_step, collate_fn=collate)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    rows = [json.loads(line) for line in Path(job["tokens"]).read_text().splitlines()]
    model = Path(job["folder"], NAME)
    shutil.copytree(job["model"], model)
    convert_hf_checkpoint(model, model_name=NAME)
    notes = Notes(job["folder"])

    def log(_: Any, metrics: dict[str, Any], step: int) -> None:
        if "loss" in metrics:  # not the throughput; each step is one forward pass here
            notes.note(metrics["loss"])

    lightning.Fabric.log_dict = log
    # it looks for the settings of the adapters on a command line that there is none of
    litgpt.finetune.lora.merge_lora = lambda **_: None
    litgpt.finetune.lora.setup(
        checkpoint_dir=model,
        out_dir=Path(job["folder"], "out"),
        precision={"fp32": "32-true", "bf16": "bf16-true"}[job["dtype"]],
        lora_r=job["rank"],
        lora_alpha=job["alpha"],
        lora_dropout=0.0,
        lora_query=True,
        lora_value=True,
        lora_projection=True,
        lora_mlp=True,
        data=Rows(rows, job["rows_per_step"]),
        train=TrainArgs(
            global_batch_size=job["rows_per_step"],
            micro_batch_size=job["rows_per_step"],
            log_interval=1,
            lr_warmup_steps=1,  # its scheduler divides by it
            epochs=1,
            max_steps=job["steps"],
        ),
        eval=EvalArgs(interval=10**9, max_new_tokens=1, max_iters=1, final_validation=False),
        optimizer={
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": job["lr"], "weight_decay": 0.01},
        },
    )


if __name__ == "__main__":
    main()
