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


def test_saving_merged_weights_leaves_the_model_alone():
    compat.apply()
    import torch
    from torchtune.modules import peft
    from torchtune.modules.peft import LoRALinear
    from torchtune.modules.peft._utils import get_merged_lora_ckpt as stock

    def changes_the_model(merge) -> bool:
        model = torch.nn.ModuleDict({"q": LoRALinear(4, 4, rank=2, alpha=4)})
        torch.nn.init.ones_(model["q"].lora_b.weight)
        before = model["q"].weight.clone()
        state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        merged = merge(state, rank=2, alpha=4)["q.weight"]
        expected = before + 2 * model["q"].lora_b.weight @ model["q"].lora_a.weight
        assert torch.allclose(merged, expected)
        return not torch.equal(model["q"].weight, before)

    assert changes_the_model(stock), "torchtune copies by itself now: remove the patch"
    assert not changes_the_model(peft.get_merged_lora_ckpt)
