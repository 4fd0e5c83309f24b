"""Recipes in a world of two processes, and what two worlds have learned."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.recipes import metrics

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
SEVERAL = Path(__file__).with_name("several.py")


def in_two_processes(*configs: Any) -> list[list[dict[str, Any]]]:
    """Run recipes one after the other in one world; the metrics of each."""
    paths = [Path(config.metric_logger.log_dir).parent / "recipe.yaml" for config in configs]
    ended = subprocess.run(
        (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(SEVERAL), *map(str, paths)),
        env=ONE_THREAD | {"PYTHONPATH": str(SEVERAL.parents[2])},
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [metrics(config) for config in configs]


def assert_close(one: Path, other: Path) -> None:
    """Two runs of one epoch have ended with the same weights."""
    import torch
    from safetensors.torch import load_file

    first, second = (
        load_file(folder / "checkpoints" / "epoch_0" / "model-00001-of-00001.safetensors")
        for folder in (one, other)
    )
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=1e-5)
