"""Which weights are trained, and what is handed over in the end: all weights, or an adapter."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from omegaconf import DictConfig
from torch import nn
from torchtune import training
from torchtune.modules import peft

Weights = dict[str, torch.Tensor]


class Method(Protocol):
    """A way to train a model."""

    def prepare(self, model: nn.Module, base: Weights) -> None:
        """Choose what is trained, and load the base model's weights."""

    def artifacts(self, weights: Weights) -> dict[str, Any]:
        """What torchtune's checkpointer saves, from all weights of the model on the CPU."""


class Full:
    """All weights."""

    def prepare(self, model: nn.Module, base: Weights) -> None:
        model.load_state_dict(base)

    def artifacts(self, weights: Weights) -> dict[str, Any]:
        return {training.MODEL_KEY: weights}


class LoRA:
    """Low-rank adapters beside frozen weights.

    Args:
        model: the recipe's `model`, with `lora_rank` and its companions.
    """

    def __init__(self, model: DictConfig) -> None:
        self.rank, self.alpha = model.lora_rank, model.lora_alpha
        self.attention = list(model.lora_attn_modules)
        self.mlp = model.get("apply_lora_to_mlp", False)
        self.output = model.get("apply_lora_to_output", False)

    def prepare(self, model: nn.Module, base: Weights) -> None:
        peft.set_trainable_params(model, peft.get_adapter_params(model))
        missing, unexpected = model.load_state_dict(base, strict=False)
        peft.validate_missing_and_unexpected_for_lora(
            lora_attn_modules=self.attention,
            apply_lora_to_mlp=self.mlp,
            apply_lora_to_output=self.output,
            base_missing=missing,
            base_unexpected=unexpected,
        )
        for module in model.modules():
            if isinstance(module, peft.DoRALinear):
                module.initialize_dora_magnitude()

    def artifacts(self, weights: Weights) -> dict[str, Any]:
        adapter = peft.get_adapter_state_dict(weights)
        merged = peft.get_merged_lora_ckpt(weights, rank=self.rank, alpha=self.alpha)
        targets = peft.get_lora_module_names(self.attention, self.mlp, self.output)
        return {
            training.ADAPTER_KEY: adapter,
            training.MODEL_KEY: merged,
            training.ADAPTER_CONFIG: {
                "r": self.rank,
                "lora_alpha": self.alpha,
                "target_modules": targets,
                "peft_type": "LORA",
            },
        }


def method_of(model: DictConfig) -> Method:
    """The method that a recipe's `model` is built for."""
    return LoRA(model) if "lora_rank" in model else Full()


def full_weights(model: nn.Module) -> Mapping[str, Any]:
    """All weights on the CPU; of a model that is spread, in the first process alone."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: Mapping[str, Any] = get_model_state_dict(model, options=options)
    return weights
