"""entrypoint.schemes: what is quantized and what is refused."""

from dataclasses import replace

import pytest

from entrypoint.errors import ModelError, SettingsError
from entrypoint.methods import quantizer
from entrypoint.schemes import (
    Scheme,
    can_round_by_rows,
    check_config,
    check_device,
    chosen,
    is_trained_for,
    of_run,
    skipped,
)
from entrypoint.settings import Settings
from entrypoint.topology import World

CPU = World(device="cpu", devices=1, dtype="bf16", cores=2)
CUDA = replace(CPU, device="cuda")
TENSORS = {
    "model.embed_tokens.weight": (96, 60),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 96),
    "model.layers.0.input_layernorm.weight": (64,),
    "lm_head.weight": (96, 64),
}
DOWN = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    ("method", "world", "capability", "says", "hint"),
    [
        ("fp8", CPU, None, "the device is cpu", "int8-dynamic"),
        ("fp8", CUDA, (8, 0), "cuda of capability 8.0", "int8-dynamic"),
        ("fp8", replace(CUDA, dtype="fp32"), (9, 0), "number format is fp32", "--dtype bf16"),
        ("int4-weight-only", CUDA, (7, 5), "capability 7.5", "8da4w"),
        ("int4-weight-only", replace(CUDA, dtype="fp32"), (8, 0), "fp32", "--dtype bf16"),
        ("int8-dynamic", replace(CPU, device="mps"), None, "mps", "int8-weight-only"),
    ],
)
def test_what_a_device_cannot_run_is_refused_with_what_it_can(
    method, world, capability, says, hint
):
    with pytest.raises(SettingsError, match=says) as caught:
        check_device(Scheme(method=method), world, capability)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("method", "world", "capability"),
    [
        ("fp8", CUDA, (8, 9)),
        ("int4-weight-only", CUDA, (8, 0)),
        ("int4-weight-only", CPU, None),
        ("int8-dynamic", CPU, None),
        ("8da4w", CUDA, (7, 5)),
        ("nf4", CPU, None),
        ("nf4", replace(CPU, dtype="fp32"), None),
        ("nf4", CUDA, (7, 0)),
        ("nf4", replace(CUDA, dtype="fp32"), (7, 0)),
        ("nf4", replace(CPU, device="mps"), None),
    ],
)
def test_what_a_device_can_run_passes(method, world, capability):
    check_device(Scheme(method=method), world, capability)


def test_a_group_size_is_for_methods_with_groups():
    assert chosen("8da4w", 64, ("lm_head",)).group_size == 64
    assert chosen("int8-dynamic", None, ()).method == "int8-dynamic"
    with pytest.raises(SettingsError, match="no groups"):
        chosen("int8-weight-only", 64, ())
    with pytest.raises(SettingsError, match="nf4 has one scale for each 64") as caught:
        chosen("nf4", 32, ())
    assert "--group-size" in str(caught.value)
    assert chosen("nf4", None, ("lm_head",)).method == "nf4"


def test_the_output_head_is_left_alone_by_default_and_quantized_when_it_is_not_named():
    assert skipped(Scheme(), TENSORS, "m") == ("lm_head",)
    assert skipped(Scheme(skip=(DOWN,)), TENSORS, "m") == (DOWN,)


def test_a_tied_output_head_is_never_quantized():
    tied = {name: shape for name, shape in TENSORS.items() if name != "lm_head.weight"}
    assert skipped(Scheme(skip=("*.down_proj",)), tied, "m") == ("lm_head", DOWN)


def test_patterns_leave_all_layers_alone_that_match():
    scheme = Scheme(skip=("lm_head", "*.self_attn.*"))
    assert skipped(scheme, TENSORS, "m") == ("lm_head", "model.layers.0.self_attn.q_proj")


def test_a_pattern_that_no_layer_has_is_refused():
    with pytest.raises(SettingsError, match="no layer is called down_proj") as caught:
        skipped(Scheme(skip=("down_proj",)), TENSORS, "m")
    assert "*.down_proj" in caught.value.hint


def test_a_pattern_that_leaves_nothing_to_do_is_refused():
    with pytest.raises(SettingsError, match="nothing would be quantized"):
        skipped(Scheme(skip=("*",)), TENSORS, "m")


def test_groups_must_divide_the_columns_of_what_is_quantized():
    with pytest.raises(ModelError, match="down_proj has 96 columns") as caught:
        skipped(Scheme(group_size=64), TENSORS, "m")
    assert "--group-size 32," in caught.value.hint
    assert f"--skip {DOWN}" in caught.value.hint
    assert skipped(Scheme(group_size=64, skip=("lm_head", DOWN)), TENSORS, "m")
    assert skipped(Scheme(method="int8-dynamic", group_size=64), TENSORS, "m") == ("lm_head",)


def test_blocks_of_nf4_must_divide_the_columns_and_what_is_multiplied_at_a_time_the_rows():
    nf4 = Scheme(method="nf4")
    with pytest.raises(ModelError, match="96 columns, not a multiple of NF4") as caught:
        skipped(nf4, TENSORS, "m")
    assert "int8-weight-only" in caught.value.hint
    assert "--group-size" not in caught.value.hint
    assert f"--skip {DOWN}" in caught.value.hint
    assert skipped(Scheme(method="nf4", skip=("lm_head", DOWN)), TENSORS, "m") == ("lm_head", DOWN)
    with pytest.raises(ModelError, match="q_proj has 80 rows, not a multiple of the 32") as caught:
        skipped(nf4, {"model.q_proj.weight": (80, 64), DOWN + ".weight": (96, 128)}, "m")
    assert "--skip model.q_proj" in caught.value.hint
    # the rows of what is left alone may be any number
    odd = {"lm_head.weight": (97, 64), DOWN + ".weight": (96, 128)}
    assert skipped(nf4, odd, "m") == ("lm_head",)


def test_sizes_are_looked_at_before_there_are_weights():
    config = {"hidden_size": 72, "intermediate_size": 128}
    with pytest.raises(ModelError, match="hidden_size 72 is not a multiple of the group size 32"):
        check_config(config, Scheme(), "config.json")
    check_config(config, Scheme(method="int8-weight-only"), "config.json")
    with pytest.raises(ModelError, match="hidden_size 72 is not a multiple of NF4's block of 64"):
        check_config(config, Scheme(method="nf4"), "config.json")
    fitting = {"hidden_size": 64, "intermediate_size": 192, "num_key_value_heads": 2}
    check_config(fitting | {"head_dim": 16}, Scheme(method="nf4"), "config.json")
    with pytest.raises(ModelError, match="head_dim, 40, is not a multiple of the 32 rows"):
        check_config(fitting | {"head_dim": 20}, Scheme(method="nf4"), "config.json")


def test_a_run_makes_the_copies_that_it_is_asked_for():
    assert of_run(Settings()) == ()
    assert of_run(Settings(then=("quantize",))) == (Scheme(),)
    found = of_run(Settings(then=("quantize",), quantize_methods=("int8-dynamic", "8da4w")))
    assert [one.method for one in found] == ["int8-dynamic", "8da4w"]
    with pytest.raises(SettingsError, match="no quantized copy") as caught:
        of_run(Settings(then=("eval",), quantize_methods=("int8-dynamic",)))
    assert "add quantize to --then" in str(caught.value.hint)


def test_rows_say_how_to_round_four_bits_that_are_not_packed_and_activations():
    assert can_round_by_rows(Scheme(), CUDA)
    assert can_round_by_rows(Scheme(method="int4-weight-only"), CPU)
    assert not can_round_by_rows(Scheme(method="int4-weight-only"), CUDA)
    assert can_round_by_rows(Scheme(method="int8-dynamic"), CUDA)
    assert not can_round_by_rows(Scheme(method="int8-weight-only"), CPU)
    assert not can_round_by_rows(Scheme(method="fp8"), CUDA)
    assert can_round_by_rows(Scheme(method="nf4"), CPU)
    assert can_round_by_rows(Scheme(method="nf4"), CUDA)


def test_training_for_quantization_rounds_as_the_copy_does_by_default():
    trained = quantizer("qat")
    assert trained is not None
    assert trained["groupsize"] == Scheme().group_size
    assert is_trained_for(Scheme(), "qat-lora")
    assert not is_trained_for(Scheme(), "lora")
    assert not is_trained_for(Scheme(group_size=64), "qat")
    assert not is_trained_for(Scheme(method="int4-weight-only"), "qat")
    # a manifest of another version may name what is unknown here
    assert not is_trained_for(Scheme(), "newest")
    assert not is_trained_for(Scheme(), None)
