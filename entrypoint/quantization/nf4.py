"""NF4 as bitsandbytes has it, for a folder that transformers loads. Imports torch and bitsandbytes.

torchao has NF4 too, as torchtune takes it (`entrypoint.tune.quantized`), but no way to write it as
safetensors.
"""

from collections.abc import Collection
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import BitsAndBytesConfig
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from entrypoint.models.card import TORCH_DTYPE
from entrypoint.topology import World


def quantizer(world: World, alone: Collection[str]) -> Bnb4BitHfQuantizer:
    """transformers' quantizer of a folder in NF4.

    Args:
        alone: names of the layers that are not quantized.
    """
    written = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=TORCH_DTYPE[world.dtype],
        # the name is from the time when bitsandbytes had 8 bits only
        llm_int8_skip_modules=sorted(alone),
    )
    return Bnb4BitHfQuantizer(written, pre_quantized=True)


def pack(model: Any, name: str) -> None:
    """Put a linear layer of a model into NF4, in blocks of 64, with scales in 8 bits."""
    linear = model.get_submodule(name)
    with torch.device("meta"):
        packed: Any = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=linear.weight.dtype,
        )
    weight: Any = Params4bit(linear.weight.data, quant_type="nf4", module=packed)
    # which quantizes, also when the weight is there already
    packed.weight = weight.to(linear.weight.device)
    # it may be in a file that has not been read
    packed.bias = linear.bias
    model.set_submodule(name, packed)
