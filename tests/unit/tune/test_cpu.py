"""entrypoint.tune.cpu: the day a patch is no longer needed, one of these fails."""

import json
import subprocess
import sys

import pytest
import torch

STOCK = """
import json, os, sys
from importlib.metadata import version
import torchao.quantization, torchao.dtypes
from entrypoint.tune import compat
for module, name, stand_in in compat.REMOVED_NAMES:
    vars(sys.modules[module]).setdefault(name, stand_in)
import torch, torchtune, torch.distributed as dist
from torchtune import training
from pathlib import Path
recipes = Path(torchtune.__file__).parents[1] / "recipes"
asks = [path.stem for path in recipes.glob("*.py") if "cuda:nccl,cpu:gloo" in path.read_text()]
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}

def fails(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return None

found = {
    "version": version("torchtune"),
    "asks": sorted(asks),
    "nccl": fails(lambda: dist.init_process_group("cuda:nccl,cpu:gloo")),
    "memory": fails(lambda: training.get_memory_stats(torch.device("cpu"))),
    "missing": [
        name for name in ("empty_cache", "reset_peak_memory_stats") if not hasattr(torch.cpu, name)
    ],
}
dist.destroy_process_group() if dist.is_initialized() else None
from entrypoint.tune import cpu
cpu.apply()
cpu.apply()
dist.init_process_group("cuda:nccl,cpu:gloo")
found["backend"] = dist.get_backend()
found["measured"] = training.get_memory_stats(torch.device("cpu"))
training.log_memory_stats(found["measured"])
torch.cpu.empty_cache()
torch.cpu.reset_peak_memory_stats()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict:
    """Facts of a process without the patches, and what they change in it."""
    ended = subprocess.run(
        (sys.executable, "-c", STOCK), capture_output=True, text=True, check=True
    )
    return json.loads(ended.stdout.splitlines()[-1])


def test_recipes_still_ask_for_nccl(found: dict):
    assert found["version"] == "0.6.1"
    assert "lora_dpo_distributed" in found["asks"]
    if not torch.distributed.is_nccl_available():
        assert found["nccl"] == "RuntimeError"
    assert found["backend"] == "gloo"


def test_memory_is_still_not_measured_on_a_cpu(found: dict):
    assert found["memory"] == "ValueError"
    assert 0.1 < found["measured"]["peak_memory_alloc"] < 20


def test_torch_still_has_no_such_functions_for_a_cpu(found: dict):
    assert found["missing"] == ["empty_cache", "reset_peak_memory_stats"]
