"""Time greedy generation of a run's quantized copies against its model.

    python scripts/bench_generation.py RUN_FOLDER

Each model answers the same prompts, in turns, on one thread: then CPU seconds are what a quiet
machine would take. Figures go to docs/benchmarks.md by hand.
"""

import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from entrypoint.data.source import EMBEDDED_FOLDER
from entrypoint.noise import hide_loading_bars, silence
from entrypoint.run_folder import RunFolder

ROUNDS = 3
TOKENS = 32
BATCHES = (1, 8)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def seconds(model: Any, inputs: Any, tokens: int) -> float:
    """CPU seconds of an answer of so many tokens, whatever they are."""
    start = time.process_time()
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return time.process_time() - start


def main() -> None:
    silence()
    hide_loading_bars()
    torch.set_num_threads(1)
    run = RunFolder(root=Path(sys.argv[1]))
    folders = {"the model": run.final}
    folders |= {folder.name: folder for folder in sorted((run.root / "quantized").iterdir())}
    tokenizer = AutoTokenizer.from_pretrained(run.final, padding_side="left")
    with (EMBEDDED_FOLDER / "eval.jsonl").open(encoding="utf-8") as lines:
        prompts = [json.loads(line)["messages"][:-1] for line in lines]
    # the part that grows with the answer alone, without the prompt's
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for name, folder in folders.items():
            model = load(folder)
            for batch in BATCHES:
                inputs = tokenizer.apply_chat_template(
                    prompts[:batch], add_generation_prompt=True, padding=True,
                    return_tensors="pt", return_dict=True,
                )  # fmt: skip
                spent = seconds(model, inputs, TOKENS + 1) - seconds(model, inputs, 1)
                rates.setdefault((name, batch), []).append(batch * TOKENS / spent)
            del model
            gc.collect()
    for (name, batch), found in rates.items():
        ratios = [
            mine / plain for mine, plain in zip(found, rates["the model", batch], strict=True)
        ]
        print(
            f"{name}, {batch} at once: {statistics.median(found):.1f} tokens per CPU second, "
            f"{statistics.median(ratios):.2f} of the model's "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
