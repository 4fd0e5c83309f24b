"""Lets torchtune 0.6.1 work with current releases of what it depends on.

It imports names that torchao removed or renamed; PEFT and transformers need a torchao that no
longer has them. `apply` puts the missing names back before torchtune is imported, touches nothing
that is there, and then mends what torchtune itself gets wrong. Each entry says what for;
tests/unit/tune/test_compat.py fails on the day one of them is no longer needed.
"""

import importlib
import sys
from typing import Any

from entrypoint.tune import mend


def _int4_weight_only(group_size: int = 128, **_: Any) -> Any:
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(group_size=group_size)


def _int8_dynamic_activation_int4_weight(group_size: int = 32, **_: Any) -> Any:
    import torch
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup

    return Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=PerGroup(group_size),
    )


class _TensorCoreTiledLayout:
    """Placeholder: only a CUDA int4 layout of old torchao releases, never built here."""


REMOVED_NAMES = (
    # torchao >= 0.16: the function-style configurations became classes
    ("torchao.quantization", "int4_weight_only", _int4_weight_only),
    (
        "torchao.quantization",
        "int8_dynamic_activation_int4_weight",
        _int8_dynamic_activation_int4_weight,
    ),
    # torchao >= 0.16: the layout moved to prototype and is not exported any more
    ("torchao.dtypes", "TensorCoreTiledLayout", _TensorCoreTiledLayout),
)
# torchao >= 0.18 moved the NF4 tensor
MOVED_MODULES = (
    ("torchao.dtypes.nf4tensor", "torchao.quantization.quantize_.workflows.nf4.nf4_tensor"),
)

ADAPTER_SUFFIX = ".lora_a.weight"


def apply() -> tuple[str, ...]:
    """Make torchtune usable; returns the dotted names of torchao that were missing."""
    restored = []
    for module_name, name, stand_in in REMOVED_NAMES:
        module = importlib.import_module(module_name)
        if not hasattr(module, name):
            setattr(module, name, stand_in)
            restored.append(f"{module_name}.{name}")
    for old, new in MOVED_MODULES:
        try:
            importlib.import_module(old)
        except ModuleNotFoundError:
            sys.modules[old] = importlib.import_module(new)
            restored.append(old)

    _merge_adapters_into_copies()
    mend.apply()
    return tuple(restored)


def _merge_adapters_into_copies() -> None:
    """Keep a LoRA recipe's model as it is when it saves merged weights.

    torchtune 0.6.1 merges in place, into what `.cpu()` gave it. On a CPU that is the model's own
    weight, so every epoch but the last left its adapter in the base it went on to train.
    """
    from torchtune.modules import peft

    merge_in_place = peft.get_merged_lora_ckpt
    if merge_in_place.__module__ == __name__:
        return

    def get_merged_lora_ckpt(state_dict: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        for name in list(state_dict):
            if name.endswith(ADAPTER_SUFFIX):
                weight = name.removesuffix(ADAPTER_SUFFIX) + ".weight"
                state_dict[weight] = state_dict[weight].clone()
        return dict(merge_in_place(state_dict, **arguments))

    peft.get_merged_lora_ckpt = get_merged_lora_ckpt
