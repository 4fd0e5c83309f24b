"""entrypoint.methods: what goes together, and what it takes."""

import dataclasses
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.errors import SettingsError
from entrypoint.methods import (
    TRAITS,
    model_arguments,
    nf4_blocks,
    trained_parameters,
)
from entrypoint.models.tensors import count, decoder_tensors
from entrypoint.settings import Method, Settings
from tests.unit.factories import MODEL, plan

SMOLLM2 = decoder_tensors(
    vocab=49_152, hidden=576, inner=1536, layers=30, heads=9, kv_heads=3, head_dim=64, tied=True
)
EMBEDDED = dataclasses.replace(MODEL, tensors=SMOLLM2, parameters=count(SMOLLM2))
UNTIED = dataclasses.replace(MODEL, tensors={**SMOLLM2, "lm_head.weight": (49_152, 576)})


def test_every_method_has_its_traits():
    assert tuple(TRAITS) == get_args(Method)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "full", "lora_rank": 8}, "--method full has no adapter that --lora-rank"),
        ({"method": "qat", "lora_targets": ("mlp",)}, "no adapter that --lora-targets"),
        ({"lora_targets": ("output",)}, "output head is its embedding"),
        ({"method": "qat-lora", "lora_dropout": 0.1}, "nothing to drop out"),
        ({"method": "qat", "objective": "dpo"}, "fake quantization would count as a move"),
        ({"method": "qat-lora", "objective": "dpo"}, "fake quantization would count as a move"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(settings: dict[str, Any], message: str):
    with pytest.raises(SettingsError, match=message) as refused:
        plan(model=EMBEDDED, **settings)
    assert refused.value.exit_code == 3
    assert refused.value.hint


def test_a_size_that_groups_do_not_divide_is_named():
    odd = dataclasses.replace(EMBEDDED, tensors={"model.layers.0.mlp.up_proj.weight": (64, 80)})
    with pytest.raises(SettingsError, match=r"up_proj.weight has 80 columns"):
        plan(model=odd, method="qat")
    assert plan(model=odd, method="qlora")


def test_an_untied_output_head_can_have_an_adapter_but_not_for_a_quantized_copy():
    assert plan(model=UNTIED, lora_targets=("output",)).variables["model"]["apply_lora_to_output"]
    with pytest.raises(SettingsError, match="keeps its output head"):
        plan(model=UNTIED, lora_targets=("output",), method="qat-lora")


def test_the_plan_decides_rank_alpha_and_targets():
    assert model_arguments(Settings()) == {
        "lora_attn_modules": ["q_proj", "v_proj", "output_proj"],
        "apply_lora_to_mlp": True,
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
    }
    given = model_arguments(
        Settings(method="dora", lora_rank=4, lora_dropout=0.1, lora_targets=("mlp",))
    )
    assert given["lora_attn_modules"] == []
    assert (given["lora_rank"], given["lora_alpha"], given["lora_dropout"]) == (4, 8, 0.1)
    assert given["use_dora"]
    assert model_arguments(Settings(lora_alpha=5.0))["lora_alpha"] == 5.0


def test_what_is_trained_is_counted():
    per_layer = 16 * ((576 + 576) * 2 + (576 + 192) + 3 * (576 + 1536))
    assert trained_parameters(Settings(), EMBEDDED) == 30 * per_layer
    rows = 576 + 192 + 576 + 1536 * 2 + 576
    assert trained_parameters(Settings(method="dora"), EMBEDDED) == 30 * (per_layer + rows)
    assert trained_parameters(Settings(method="qat"), EMBEDDED) == 134_515_008


def test_the_sizes_of_the_embedded_model_have_blocks():
    assert nf4_blocks(576 * 576) == (64, 216)
    assert nf4_blocks(4096 * 4096) == (64, 256)
    assert nf4_blocks(192 * 576) == (64, 216)
    assert nf4_blocks(9 * 8) is None
    assert nf4_blocks(64 * 7) == (64, 7)


@given(st.integers(1, 5_000), st.integers(1, 5_000))
def test_blocks_divide_evenly(rows: int, columns: int):
    blocks = nf4_blocks(rows * columns)
    if blocks is not None:
        block, together = blocks
        assert rows * columns % (block * together) == 0
        assert 16 <= block <= 64
        assert 1 <= together <= 256
