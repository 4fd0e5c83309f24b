"""NF4 as bitsandbytes has it, for a folder that transformers loads. Imports torch and bitsandbytes.

torchao has NF4 too, as torchtune takes it (`entrypoint.tune.quantized`), but no way to write it as
safetensors.
"""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, dequantize_blockwise, get_4bit_type
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from entrypoint.methods import NF4_BLOCK
from entrypoint.models.card import TORCH_DTYPE
from entrypoint.quantization.calibration import Moment, Way
from entrypoint.quantization.packed import Packed, pairs
from entrypoint.quantization.rounding import Inputs, Table, compensated, fitted_scales
from entrypoint.topology import World

LARGEST = tuple(1 + 0.05 * step for step in range(9))
"""At which the largest weight of a block is tried to be; see `entrypoint.quantization.rounding`."""


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


def numbers(device: torch.device) -> Table:
    """NF4's sixteen."""
    return Table(get_4bit_type("nf4", device=device), LARGEST)


def to_nearest(weight: torch.Tensor) -> Params4bit:
    """A weight in blocks of 64, with scales in 8 bits."""
    packed: Any = Params4bit(weight.detach(), quant_type="nf4")
    # which quantizes, also when the weight is there already
    found: Params4bit = packed.to(weight.device)
    return found


def by_rows(weight: torch.Tensor, inputs: Inputs) -> Params4bit:
    """The same, rounded so that the layer's output changes least on inputs such as these."""
    grid = numbers(weight.device)
    scale = fitted_scales(weight, NF4_BLOCK, inputs.importance, grid)
    # a weight that is its scale everywhere, to have these in the form that they are stored in
    packed = to_nearest(scale.repeat_interleave(NF4_BLOCK, 1))
    codes = compensated(weight, inputs, _scale(packed), grid)
    packed.data.copy_(pairs(codes).view(packed.shape))
    return packed


def unpacked(weight: Params4bit) -> torch.Tensor:
    """What a layer computes with, in the format that the weight was in."""
    found: torch.Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return found


def way(model: Any) -> Way:
    """How layers of a model are rounded by rows and then packed."""
    rounded: dict[nn.Linear, Params4bit] = {}

    def round_one(linear: nn.Linear, inputs: Inputs) -> None:
        rounded[linear] = by_rows(linear.weight, inputs)
        # bitsandbytes would pack it anew before it answers on a CPU, which takes longer
        linear.weight.copy_(unpacked(rounded[linear]))

    def settle() -> None:
        names = {module: name for name, module in model.named_modules()}
        for linear, weight in rounded.items():
            put(model, names[linear], weight)
        rounded.clear()

    return Way(keep=Moment, round_one=round_one, settle=settle)


def put(model: Any, name: str, weight: Params4bit) -> None:
    """Put a packed weight into the place of a linear layer's."""
    linear = model.get_submodule(name)
    with torch.device("meta"):
        packed: Any = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=linear.weight.dtype,
        )
    weight.module = packed
    packed.quant_state = weight.quant_state
    packed.weight = weight
    # it may be in a file that has not been read
    packed.bias = linear.bias
    model.set_submodule(name, packed)


def weights(model: Any) -> Iterator[tuple[str, torch.Tensor | Packed]]:
    """Names and weights of a model, without copies of others."""
    for name, weight in model.named_parameters():
        if isinstance(weight, Params4bit):
            scale = _scale(weight).to(weight.quant_state.dtype)
            weight = Packed(pairs=weight.data.view(len(scale), -1), scale=scale)
        yield name, weight


def _scale(weight: Params4bit) -> torch.Tensor:
    """What the numbers are multiplied by: fp32, [rows, columns / 64]."""
    state: Any = weight.quant_state
    scale: torch.Tensor = dequantize_blockwise(state.absmax, state.state2) + state.offset
    return scale.view(state.shape[0], -1)
