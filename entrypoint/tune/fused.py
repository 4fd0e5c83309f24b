"""Layers of a decoder computed by `tune/gradients.py`: norms, rotary embeddings, projections, gated
feed-forward layers and the output head are one operation each."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchtune.models.llama3_1 import Llama3ScaledRoPE
from torchtune.modules import FeedForward, RMSNorm, RotaryPositionalEmbeddings, TiedLinear
from torchtune.modules.peft import LoRALinear

from entrypoint.tune import products
from entrypoint.tune.gradients import Gated, Logits, Norm, Project, Rotate, Weights


def fuse(model: nn.Module) -> None:
    """Let a decoder's layers compute in this module's way; those it does not know stay."""
    for module in model.modules():
        # subclasses compute something else
        forward = FORWARD.get(type(module))
        if forward is None or (type(module) is FeedForward and not _is_gated(module)):
            continue
        if not isinstance(module, FeedForward) or all(map(_is_plain, _projections(module))):
            module.forward = _bound(forward, module)
    head = getattr(model, "output", None)
    if isinstance(head, TiedLinear):  # which is no module
        head.linear.forward = _logits
    elif type(head) is nn.Linear and head.bias is None:
        head.forward = lambda x: _logits(x, head.weight)


def _bound(forward: Callable[..., Any], module: nn.Module) -> Callable[..., Any]:
    return lambda *inputs, **named: forward(module, *inputs, **named)


def _is_gated(module: Any) -> bool:
    return type(module.activation) is nn.SiLU and module.w3 is not None


def _projections(module: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    return module.w1, module.w3, module.w2


def _is_plain(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, LoRALinear)


def _weights(module: Any) -> Weights | None:
    """None when dropout or a quantized weight asks for the module's own way."""
    if type(module.weight.data) is not torch.Tensor or module._forward_hooks:
        return None
    if type(module) is nn.Linear:
        return module.weight, module.bias, None, None, 0.0
    if module._quantize_base or (module.training and isinstance(module.dropout, nn.Dropout)):
        return None
    if module.disabled:
        return module.weight, module.bias, None, None, 0.0
    scale = module.alpha / module.rank
    return module.weight, module.bias, module.lora_a.weight, module.lora_b.weight, scale


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = Norm.apply(x, module.scale, module.eps)  # type: ignore[no-untyped-call]
    return found


def _rotate(module: Any, x: torch.Tensor, *, input_pos: torch.Tensor | None = None) -> torch.Tensor:
    turns = torch.view_as_complex(module.cache)
    # [batch or 1, sequence, 1, head_dim / 2]
    chosen = turns[None, : x.shape[1]] if input_pos is None else turns[input_pos]
    found: torch.Tensor = Rotate.apply(x, chosen[:, :, None])  # type: ignore[no-untyped-call]
    return found


def _adapted(module: Any, x: torch.Tensor) -> torch.Tensor:
    weights = _weights(module)
    if weights is None:
        plain: torch.Tensor = type(module).forward(module, x)
        return plain
    found: torch.Tensor = Project.apply(x, *weights)  # type: ignore[no-untyped-call]
    return found


def _linear(module: Any, x: torch.Tensor) -> torch.Tensor:
    if products.precision(x) == x.dtype:
        return F.linear(x, module.weight, module.bias)
    return _adapted(module, x)


def _logits(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if products.precision(x) == x.dtype:
        return F.linear(x, weight)
    found: torch.Tensor = Logits.apply(x, weight)  # type: ignore[no-untyped-call]
    return found


def _gated(module: Any, x: torch.Tensor) -> torch.Tensor:
    weights = [_weights(projection) for projection in _projections(module)]
    if any(found is None for found in weights):
        plain: torch.Tensor = FeedForward.forward(module, x)
        return plain
    flat = [value for found in weights if found for value in found]
    found: torch.Tensor = Gated.apply(x, *flat)  # type: ignore[no-untyped-call]
    return found


FORWARD: dict[type[nn.Module], Callable[..., torch.Tensor]] = {
    RMSNorm: _norm,
    RotaryPositionalEmbeddings: _rotate,
    Llama3ScaledRoPE: _rotate,
    nn.Linear: _linear,
    LoRALinear: _adapted,
    FeedForward: _gated,
}
