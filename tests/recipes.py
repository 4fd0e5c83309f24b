"""Recipes of a tiny model, run in the test's own process."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch

from entrypoint import pipeline
from entrypoint.data.source import EMBEDDED_FOLDER
from entrypoint.settings import Settings
from entrypoint.tune import compat

STOCK_LOSS = "loss._component_=torchtune.modules.loss.CEWithChunkedOutputLoss"
UNPACKED = ("packing_window=null", "fused_layers=false", STOCK_LOSS)
"""What turns our recipe into torchtune's."""
ALONE = {"rank": 0, "size": 1, "device": torch.device("cpu")}


def recipe(model: Path, output: Path, *overrides: str, **settings: Any) -> Any:
    """The shipped recipe for six steps of four rows of the built-in data."""
    from omegaconf import OmegaConf

    given = {"max_steps": 6, "max_seq_len": 256, "lr": 3e-3, "device": "cpu", "dtype": "fp32"}
    prepared = pipeline.prepare(
        Settings(model=str(model), output=output, overrides=overrides, **given | settings), {}
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / "recipe.yaml").write_text(prepared.recipe)
    return OmegaConf.create(prepared.recipe)


def few_rows(folder: Path, *, train: int, held_out: int = 4, source: Path = EMBEDDED_FOLDER) -> str:
    """The first rows of the built-in data."""
    folder.mkdir()
    for name, count in (("train", train), ("eval", held_out)):
        lines = (source / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:count]))
    return str(folder)


def train(
    config: Any, *, stop_after: int | None = None, stop_at_look: int | None = None
) -> list[dict[str, Any]]:
    """Run our recipe; the metrics of all steps.

    Args:
        stop_after: step after which SIGTERM comes.
        stop_at_look: SIGTERM has come when the loop looks for it the so manieth time.
    """
    compat.apply()
    from entrypoint.tune import recipe as ours
    from entrypoint.tune.stopping import Stop
    from entrypoint.tune.worlds import Ranks

    stop = Stop()
    if stop_after is not None:
        stop = stops_after(stop_after, Path(config.metric_logger.log_dir))
    if stop_at_look is not None:
        stop = stops_at_look(stop_at_look)
    ours.train(config, Ranks(**ALONE), stop)
    return metrics(config)


def stops_after(after: int, logs: Path) -> Any:
    from entrypoint.tune.stopping import Stop

    class Later(Stop):
        @property
        def number(self) -> int:  # type: ignore[override]
            path = logs / "metrics.jsonl"
            done = path.read_text().count("\n") if path.exists() else 0
            return 15 if done >= after else 0

    return Later()


def stops_at_look(look: int) -> Any:
    from entrypoint.tune.stopping import Stop

    class Later(Stop):
        looks = 0

        @property
        def number(self) -> int:  # type: ignore[override]
            self.looks += 1
            return 15 if self.looks >= look else 0

    return Later()


STOCK = {
    ("sft", "lora"): ("lora_finetune_single_device", "LoRAFinetuneRecipeSingleDevice"),
    ("sft", "full"): ("full_finetune_single_device", "FullFinetuneRecipeSingleDevice"),
    ("dpo", "lora"): ("lora_dpo_single_device", "LoRADPORecipeSingleDevice"),
    ("kd", "lora"): ("knowledge_distillation_single_device", "KDRecipeSingleDevice"),
}
"""Objective and method -> torchtune's recipe for them on one device, and its class."""


def train_stock(config: Any) -> list[dict[str, Any]]:
    """Run torchtune's recipe for the same objective and method on one device."""
    compat.apply()
    import torchtune

    method = "lora" if "lora_rank" in config.model else "full"
    name, cls = STOCK[config.get("objective", "sft"), method]
    path = Path(torchtune.__file__).parents[1] / "recipes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"stock_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    config.resume_from_checkpoint = False
    config.optimizer_in_bwd = False
    runs = getattr(module, cls)(cfg=config)
    runs.setup(cfg=config)
    runs.train()
    runs.cleanup()
    return metrics(config)


def metrics(config: Any) -> list[dict[str, Any]]:
    path = Path(config.metric_logger.log_dir) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses(steps: list[dict[str, Any]]) -> list[float]:
    return [step["loss"] for step in steps]
