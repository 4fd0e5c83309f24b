"""Which weights are trained, and what is handed over in the end: all weights, or an adapter."""

from typing import Any, Protocol

import torch
from omegaconf import DictConfig
from torch import nn
from torchtune import config, training
from torchtune.modules import peft

from entrypoint.tune import nf4
from entrypoint.tune.worlds import Ranks

Weights = dict[str, torch.Tensor]
NOT_FOR_BUILDERS = ("quantize_base", "apply_lora_to_output")
"""Keys of `model` that are done here: torchtune quantizes random weights before it loads any, in
blocks that many sizes do not divide, and not all of its builders adapt the output head."""


class Method(Protocol):
    """A way to train a model."""

    def __str__(self) -> str:
        """What a run cannot change on its way."""

    def place(self, ranks: Ranks) -> torch.device:
        """Where the model is built: beside the device when not all of it goes there as it is."""

    def build(self, model: DictConfig) -> Any:
        """The decoder of a recipe's `model`, with weights at random."""

    def prepare(self, model: Any, base: Weights, ranks: Ranks) -> None:
        """Choose what is trained, and load the base model's weights, which may leave `base`."""

    def artifacts(self, weights: Weights) -> dict[str, Any]:
        """What torchtune's checkpointer saves, from all weights of the model on the CPU."""


class Full:
    """All weights.

    Args:
        quantizer: the recipe's, for quantization-aware training.
    """

    def __init__(self, quantizer: Any = None) -> None:
        self.quantizer = quantizer

    def __str__(self) -> str:
        return "full" if self.quantizer is None else "qat"

    def place(self, ranks: Ranks) -> torch.device:
        return _place(ranks)

    def build(self, model: DictConfig) -> Any:
        return config.instantiate(model)

    def prepare(self, model: Any, base: Weights, ranks: Ranks) -> None:
        model.load_state_dict(base)
        if self.quantizer:
            self.quantizer.prepare(model)

    def artifacts(self, weights: Weights) -> dict[str, Any]:
        return {training.MODEL_KEY: weights}


class Adapter:
    """Low-rank adapters beside frozen weights: LoRA, and with magnitudes DoRA.

    Args:
        model: the recipe's `model`, with `lora_rank` and its companions.
        quantizer: the recipe's, for quantization-aware training.
    """

    def __init__(self, model: DictConfig, quantizer: Any = None) -> None:
        self.rank, self.alpha = model.lora_rank, model.lora_alpha
        self.dropout = model.get("lora_dropout", 0.0)
        self.attention = list(model.lora_attn_modules)
        self.mlp = model.get("apply_lora_to_mlp", False)
        self.output = model.get("apply_lora_to_output", False)
        self.magnitudes = model.get("use_dora", False)
        self.nf4 = model.get("quantize_base", False)
        self.quantizer = quantizer

    def __str__(self) -> str:
        kind = "dora" if self.magnitudes else "qlora" if self.nf4 else "lora"
        targets = ", ".join(peft.get_lora_module_names(list(self.attention), self.mlp, self.output))
        aware = "" if self.quantizer is None else "qat-"
        return f"{aware}{kind} of rank {self.rank} and alpha {self.alpha:g} on {targets}"

    def place(self, ranks: Ranks) -> torch.device:
        return torch.device("cpu") if self.nf4 else _place(ranks)

    def build(self, model: DictConfig) -> Any:
        given = {key: value for key, value in model.items() if key not in NOT_FOR_BUILDERS}
        if not self.attention:
            # torchtune's builders want at least one of attention, which is taken away again
            given["lora_attn_modules"] = ["q_proj"]
        decoder = config.instantiate(DictConfig(given))
        if not self.attention:
            for layer in decoder.layers:
                layer.attn.q_proj = _without_adapter(layer.attn.q_proj)
        if self.output:
            decoder.output = self._with_adapter(decoder.output)
        return decoder

    def prepare(self, model: Any, base: Weights, ranks: Ranks) -> None:
        peft.set_trainable_params(model, peft.get_adapter_params(model))
        missing, unexpected = model.load_state_dict(base, strict=False)
        peft.validate_missing_and_unexpected_for_lora(
            lora_attn_modules=self.attention,
            apply_lora_to_mlp=self.mlp,
            apply_lora_to_output=self.output,
            base_missing=missing,
            base_unexpected=unexpected,
        )
        base.clear()  # with it goes the file, which is mapped
        if self.nf4:
            left = nf4.quantize(model, ranks.size, _place(ranks))
            model.to(_place(ranks))
            if left and ranks.leads:
                print(f"not in NF4, as no blocks divide them: {', '.join(left)}", flush=True)
        for module in model.modules():
            if isinstance(module, peft.DoRALinear):
                module.initialize_dora_magnitude()
        if self.quantizer:
            self.quantizer.prepare(model)

    def artifacts(self, weights: Weights) -> dict[str, Any]:
        adapter = peft.get_adapter_state_dict(weights)
        merged = peft.get_merged_lora_ckpt(weights, rank=self.rank, alpha=self.alpha)
        targets = peft.get_lora_module_names(list(self.attention), self.mlp, self.output)
        return {
            training.ADAPTER_KEY: adapter,
            training.MODEL_KEY: merged,
            training.ADAPTER_CONFIG: {
                "r": self.rank,
                "lora_alpha": self.alpha,
                "lora_dropout": self.dropout,
                "use_dora": self.magnitudes,
                "target_modules": targets,
                "peft_type": "LORA",
            },
        }

    def _with_adapter(self, linear: nn.Linear) -> nn.Module:
        cls = peft.DoRALinear if self.magnitudes else peft.LoRALinear
        adapted: nn.Module = cls(
            linear.in_features, linear.out_features, self.rank, self.alpha, self.dropout
        )
        return adapted


def _without_adapter(adapted: Any) -> nn.Linear:
    return nn.Linear(adapted.in_dim, adapted.out_dim, bias=adapted.use_bias)


def method_of(recipe: DictConfig) -> Method:
    """The method that a recipe's `model` and `quantizer` are for."""
    quantizer = config.instantiate(recipe.quantizer) if recipe.get("quantizer") else None
    if "lora_rank" in recipe.model:
        return Adapter(recipe.model, quantizer)
    return Full(quantizer)


def convert_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Put the weights that are not trained into another number format, one after the other."""
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(dtype)


def _place(ranks: Ranks) -> torch.device:
    # a model that will be spread is built beside the devices, each of which gets its part
    return ranks.device if ranks.size == 1 else torch.device("cpu")


def full_weights(model: nn.Module, ranks: Ranks) -> Weights:
    """All weights on the CPU, none in NF4; of a model that is spread, in the first process alone.
    All processes must call it."""
    weights = {}
    for name, weight in model.state_dict().items():
        whole = nf4.dequantized(weight)
        if ranks.leads:
            # activation checkpointing puts a wrapper's name into those of its layer
            weights[name.replace("_checkpoint_wrapped_module.", "")] = whole.cpu()
    return weights
