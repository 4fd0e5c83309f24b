"""Quantization-aware training: layers that round as their 8da4w copy will.

The scheme is torchao's, inferred from the configuration that `train quantize` uses. An adapter is
merged before the rounding, since what is quantized in the end is the merged weight; torchtune's
QATLoRALinear rounds the base weight alone.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup
from torchao.quantization.qat import FakeQuantizedLinear
from torchao.quantization.qat.fake_quantize_config import _infer_fake_quantize_configs
from torchao.quantization.qat.fake_quantizer import FakeQuantizerBase
from torchtune.modules.peft import LoRALinear


class Int8DynActInt4WeightQATQuantizer:
    """A recipe's `quantizer`; torchtune's of this name takes torchao's older scheme.

    Args:
        groupsize: weights that share one scale.
    """

    def __init__(self, groupsize: int) -> None:
        config = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4,  # type: ignore[attr-defined]
            weight_granularity=PerGroup(groupsize),
        )
        self.activations, self.weights = _infer_fake_quantize_configs(config)

    def prepare(self, model: Any) -> None:
        """Change the linear layers of a decoder, but for its output head; weights stay."""
        layers: nn.Module = model.layers
        for name, module in list(layers.named_modules()):
            if isinstance(module, LoRALinear):
                layers.set_submodule(name, self._adapted(module))
            elif type(module) is nn.Linear and not name.endswith((".lora_a", ".lora_b")):
                with torch.device("meta"):
                    empty = FakeQuantizedLinear(
                        module.in_features,
                        module.out_features,
                        module.bias is not None,
                        self.activations,
                        self.weights,
                    )
                empty.weight, empty.bias = module.weight, module.bias
                layers.set_submodule(name, empty)

    def _adapted(self, module: LoRALinear) -> nn.Module:
        with torch.device("meta"):
            empty = FakeQuantizedLoRALinear(
                module.in_dim, module.out_dim, module.rank, module.alpha, use_bias=module.use_bias
            )
        empty.weight, empty.bias = module.weight, module.bias
        empty.lora_a, empty.lora_b = module.lora_a, module.lora_b
        empty.round_activations = FakeQuantizerBase.from_config(self.activations)
        empty.round_weights = FakeQuantizerBase.from_config(self.weights)
        return empty


class FakeQuantizedLoRALinear(LoRALinear):
    """A linear layer whose weight is rounded with the adapter merged into it.

    Without its adapter (`disabled`) it is the base model's layer, not rounded.
    """

    round_activations: nn.Module
    round_weights: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., in_dim]; returns [..., out_dim]."""
        if self.disabled:
            return F.linear(x, self.weight, self.bias)
        update = (self.alpha / self.rank) * self.lora_b.weight @ self.lora_a.weight
        merged = self.round_weights(self.weight + update)
        return F.linear(self.round_activations(x), merged, self.bias)
