"""entrypoint.tune.compat: the day a stand-in is no longer needed, one of these fails."""

import importlib

from entrypoint.tune import compat

STILL_NEEDED = {
    "torchao.quantization.int4_weight_only",
    "torchao.quantization.int8_dynamic_activation_int4_weight",
}


def test_it_puts_back_exactly_what_is_missing_and_torchtune_imports():
    # other tests in this process may have applied it already
    for name in STILL_NEEDED:
        module, attribute = name.rsplit(".", 1)
        vars(importlib.import_module(module)).pop(attribute, None)
    assert set(compat.apply()) == STILL_NEEDED
    assert compat.apply() == ()
    importlib.import_module("torchtune.training")


def test_the_stand_ins_make_todays_configurations():
    config = compat._int8_dynamic_activation_int4_weight(group_size=64)
    assert config.weight_granularity.group_size == 64
    assert compat._int4_weight_only(group_size=32).group_size == 32
