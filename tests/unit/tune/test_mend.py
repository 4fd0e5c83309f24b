"""entrypoint.tune.mend: the day torchtune is right by itself, one of these fails."""

import json
import subprocess
import sys

import pytest

STOCK = """
import inspect, json, sys
import torchao.quantization, torchao.dtypes
from entrypoint.tune import compat
for module, name, stand_in in compat.REMOVED_NAMES:
    vars(sys.modules[module]).setdefault(name, stand_in)
import torch, torchtune.models
from torchtune._cli.run import Run
from torchtune.models.gemma2 import gemma2
from torchtune.models.gemma2._convert_weights import _GEMMA2_FROM_HF
from torchtune.models.convert_weights import tune_to_peft_adapter_weights
from torchtune.modules.peft import DoRALinear
from torchtune.models.qwen2._convert_weights import _FROM_HF
from torchtune.training import FullModelHFCheckpointer
sizes = ("vocab_size", "num_layers", "num_heads", "head_dim", "num_kv_heads", "embed_dim",
    "intermediate_dim", "max_seq_len")
model = gemma2(**dict.fromkeys(sizes, 2))
saves = inspect.getsource(FullModelHFCheckpointer.save_checkpoint)
dora = DoRALinear(4, 4, rank=1, alpha=1, use_bias=True)
dora.initialize_dora_magnitude()
dora.magnitude.data *= 2
magnitudes = {"layers.0.attn.q_proj.magnitude": torch.arange(8)}
(converted,) = tune_to_peft_adapter_weights(magnitudes, 1, 1, 8, 8).values()
print(json.dumps({
    "bias": torch.allclose(dora(torch.zeros(4)), 2 * dora.bias),
    "magnitudes": converted.tolist(),
    "pre_feedforward": _GEMMA2_FROM_HF["model.layers.{}.pre_feedforward_layernorm.weight"],
    "cap": [type(model.norm).__name__, type(model.output).__name__],
    "qwen3": hasattr(torchtune.models, "qwen3"),
    "q_norm": "model.layers.{}.self_attn.q_norm.weight" in _FROM_HF,
    "adapters": saves.count("tune_to_peft_adapter_weights("),
    "phi": saves.count("Saving Phi adapter weights to PEFT format is not supported"),
    "dotted": Run._convert_to_dotpath(None, "a.b.c"),
}))
"""


@pytest.fixture(scope="module")
def stock() -> dict:
    """Facts of a process in which torchtune imports but nothing of it is mended."""
    ended = subprocess.run(
        (sys.executable, "-c", STOCK), capture_output=True, text=True, check=True
    )
    return json.loads(ended.stdout)


def test_torchtune_still_swaps_gemma2s_norms(stock: dict):
    assert stock["pre_feedforward"] == "layers.{}.mlp_scale.scale"


def test_torchtune_still_caps_hidden_states_instead_of_logits(stock: dict):
    assert stock["cap"] == ["Gemma2FinalNorm", "TiedLinear"]


def test_torchtune_still_has_no_qwen3_and_no_names_for_it(stock: dict):
    assert (stock["qwen3"], stock["q_norm"]) == (False, False)


def test_torchtune_still_writes_all_adapters_as_llamas(stock: dict):
    assert stock["adapters"] == 1


def test_torchtune_still_has_no_peft_format_for_phi(stock: dict):
    assert stock["phi"] == 1


def test_torchtune_still_leaves_magnitudes_in_its_own_order(stock: dict):
    assert stock["magnitudes"] == list(range(8))


def test_torchtune_still_scales_biases_with_the_weights(stock: dict):
    assert stock["bias"]


def test_torchtune_cuts_a_dotted_path_and_the_recipes_is_whole(stock: dict):
    from entrypoint.plan import RECIPE
    from entrypoint.tune import compat

    assert stock["dotted"] == "a.b"
    compat.apply()
    from torchtune._cli.run import Run

    assert Run._convert_to_dotpath(None, RECIPE) == RECIPE
    assert Run._convert_to_dotpath(None, "mine/recipe.py") == "mine.recipe"
