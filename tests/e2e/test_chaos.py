"""Training that is killed at random moments, twenty times and more, and that comes to the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.recipes import few_rows, losses, recipe

pytestmark = pytest.mark.e2e

SEED = 20261125
LORA = ({"method": "lora", "lora_dropout": 0.3}, ("packing_window=60",))
FULL = (
    {"method": "full", "batch_size": 2, "max_steps": 28},
    ("packing_window=null", "gradient_accumulation_steps=2"),
)
"""Several epochs, with validation and early stopping: in windows, and in accumulated batches."""


def chaos(
    folder: Path, model: Path, kinds: list[Any], *, kills: int, processes: int
) -> list[list[dict[str, Any]]]:
    """Outcomes by kind: of the undisturbed run, then of those that were killed in between."""
    data = few_rows(folder / "data", train=30, held_out=6)
    pairs = []
    for number, (given, overrides) in enumerate(kinds):
        pair = []
        for name in ("straight", "disturbed"):
            output = folder / f"{name}-{number}"
            recipe(
                model, output, *overrides, data=data, epochs=2, eval_every=2, early_stop=9,
                save_every=1, resume="auto", **{"max_steps": 14, **given},
            )  # fmt: skip
            pair.append(str(folder / f"{name}-{number}.yaml"))
            (output / "recipe.yaml").rename(pair[-1])
        pairs.append(pair)
    request = {
        "recipes": pairs, "kills": kills, "seed": SEED, "processes": processes,
        "result": str(folder / "result.json"),
    }  # fmt: skip
    (folder / "request.json").write_text(json.dumps(request))
    ended = subprocess.run(
        (sys.executable, "-m", "tests.chaos", str(folder / "request.json")),
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("\nkill ") + ended.stdout.startswith("kill ") == kills * len(kinds)
    outcomes: list[list[dict[str, Any]]] = json.loads((folder / "result.json").read_text())
    return outcomes


def looks(outcome: dict[str, Any]) -> dict[int, float]:
    return {
        step["step"]: step["validation_loss"]
        for step in outcome["metrics"]
        if "validation_loss" in step
    }


def test_twenty_kills_at_random_moments_change_nothing(tiny_model: Path, tmp_path: Path):
    for runs in chaos(tmp_path, tiny_model, [LORA, FULL], kills=10, processes=1):
        straight, *disturbed = runs
        assert len(straight["metrics"]) == 14
        assert list(looks(straight)) == [2, 4, 6, 8, 10, 12, 14]
        assert straight["weights"]
        for run in disturbed:
            assert losses(run["metrics"]) == losses(straight["metrics"])
            assert looks(run) == looks(straight)
            assert run["weights"] == straight["weights"]
            # and nothing half written is left
            assert run["checkpoints"] == straight["checkpoints"]


def test_kills_among_two_processes_change_nothing(tiny_model: Path, tmp_path: Path):
    ((straight, *disturbed),) = chaos(tmp_path, tiny_model, [LORA], kills=6, processes=2)
    for run in disturbed:
        assert len(run["metrics"]) == len(straight["metrics"]) > 5
        assert losses(run["metrics"]) == pytest.approx(losses(straight["metrics"]), abs=1e-5)
        assert looks(run) == pytest.approx(looks(straight), abs=1e-5)
        assert run["checkpoints"] == straight["checkpoints"]
