"""Frozen weights in NF4, four bits each (QLoRA, https://arxiv.org/abs/2305.14314)."""

from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.distributed.tensor import DTensor
from torchao.dtypes.nf4tensor import NF4Tensor, to_nf4
from torchtune.config import instantiate

from entrypoint import allocator
from entrypoint.methods import nf4_blocks


def quantize(model: Any, parts: int, device: torch.device) -> list[str]:
    """Put the frozen matrices of a decoder's layers into NF4, on `device`.

    Args:
        parts: processes that the rows of each matrix will be divided among. Blocks do not cross
            from one part into another.

    Returns:
        Names of the matrices that stay as they are: no blocks divide them, or their rows cannot be
        divided evenly.
    """
    left = []
    with allocator.giving_back():
        for name, module in _frozen(model):
            weight = module.weight.detach().to(device)
            blocks = None if len(weight) % parts else nf4_blocks(weight.numel() // parts)
            if blocks is None:
                left.append(name)
            else:
                packed = to_nf4(weight.contiguous(), *blocks)
                module.weight = nn.Parameter(packed, requires_grad=False)
                del weight
                # what a matrix needs meanwhile is many times its size, and in some runs each
                # one's would lie elsewhere in the heap, on pages that no one had given back
                allocator.give_back()
    return left


def of_file(file: str, builder: str, **arguments: Any) -> Any:
    """torchtune's model with the weights of a quantized copy's .pt file, as `model` of a recipe.

    torchtune's recipes copy the weights of a file into a model, which NF4 weights allow when those
    of the model have the same blocks.

    Args:
        builder: import path of torchtune's builder, which is given the arguments.
    """
    model = instantiate(OmegaConf.create({"_component_": builder, **arguments}))
    weights = torch.load(file, map_location=torch.get_default_device(), weights_only=True)
    model.load_state_dict(weights, assign=True)
    return model


def _frozen(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.layers.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() == 2 and not weight.requires_grad:
            yield f"layers.{name}", module


def dequantized(weight: torch.Tensor) -> torch.Tensor:
    """A weight as training computes with it, whole in every process; any other is given back."""
    if not isinstance(weight, DTensor):
        return weight.to(weight.dtype) if isinstance(weight, NF4Tensor) else weight
    local: torch.Tensor = weight.to_local()
    if isinstance(local, NF4Tensor):
        weight = DTensor.from_local(
            local.to(local.dtype), weight.device_mesh, weight.placements, run_check=False
        )
    whole: torch.Tensor = weight.full_tensor()
    return whole
