"""LoRA adapters of Phi models in PEFT's format.

transformers keeps a Phi model's q, k and v in one matrix, gate and up in another, and torchtune
trains an adapter for each of them. Together they are exactly one adapter of the whole matrix: the
A matrices stacked, the B matrices on the diagonal of blocks, rank and alpha times their number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Weights = Mapping[str, torch.Tensor]

FUSED = {
    "self_attn.qkv_proj": ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.w1", "mlp.w3"),
    "self_attn.o_proj": ("attn.output_proj",),
    "mlp.down_proj": ("mlp.w2",),
}
"""Matrix of a layer in transformers -> its parts in torchtune, in the order of their rows."""


def to_peft(
    adapter: Weights, merged: Weights, config: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and adapter_config.json.

    Args:
        adapter: by torchtune's names: A [rank, inputs] and B [outputs, rank] of each part that has
            them, and DoRA's magnitudes [outputs].
        merged: the model with its adapter merged, by torchtune's names. What has no adapter counts
            its rows here.
        config: `r` and `lora_alpha` of each part, and what else PEFT is to know.
    """
    weights: dict[str, torch.Tensor] = {}
    parts_of: dict[str, int] = {}
    for name, parts in _matrices(merged):
        adapted = [part for part in parts if f"{part}.lora_a.weight" in adapter]
        if not adapted:
            continue
        parts_of[name.rpartition(".")[2]] = len(adapted)
        theirs = f"base_model.model.{name}"
        weights[f"{theirs}.lora_A.weight"] = torch.cat(
            [adapter[f"{part}.lora_a.weight"] for part in adapted]
        )
        weights[f"{theirs}.lora_B.weight"] = _block_diagonal(parts, adapter, merged)
        if f"{adapted[0]}.magnitude" in adapter:
            weights[f"{theirs}.lora_magnitude_vector"] = torch.cat(
                [_magnitude(part, adapter, merged) for part in parts]
            )
    several = {module: count for module, count in parts_of.items() if count > 1}
    return weights, {
        **config,
        "target_modules": sorted(parts_of),
        "rank_pattern": {module: count * config["r"] for module, count in several.items()},
        "alpha_pattern": {
            module: count * config["lora_alpha"] for module, count in several.items()
        },
    }


def _matrices(merged: Weights) -> Sequence[tuple[str, tuple[str, ...]]]:
    """Name in transformers and torchtune's names of the parts, of every matrix of the model."""
    layers = 1 + max(int(name.split(".")[1]) for name in merged if name.startswith("layers."))
    return [
        (f"model.layers.{layer}.{name}", tuple(f"layers.{layer}.{part}" for part in parts))
        for layer in range(layers)
        for name, parts in FUSED.items()
    ] + [("lm_head", ("output",))]


def _block_diagonal(parts: Sequence[str], adapter: Weights, merged: Weights) -> torch.Tensor:
    """B of the whole: a part's rows reach its own columns alone."""
    # a part without an adapter has rows of zeros, and no columns
    blocks = [
        adapter.get(f"{part}.lora_b.weight", merged[f"{part}.weight"][:, :0]) for part in parts
    ]
    whole: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return whole


def _magnitude(part: str, adapter: Weights, merged: Weights) -> torch.Tensor:
    """Lengths of the rows; DoRA leaves those of a part without an adapter as they are."""
    found = adapter.get(f"{part}.magnitude")
    return merged[f"{part}.weight"].norm(dim=1) if found is None else found
