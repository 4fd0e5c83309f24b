"""What each method trains, what it goes together with, and what it takes. Pure: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrypoint.errors import SettingsError
from entrypoint.models.card import Model
from entrypoint.models.tensors import Shape
from entrypoint.settings import LoraTarget, Method, Settings

LORA_RANK = 16
ALPHA_OF_RANK = 2
"""Default of --lora-alpha, as a multiple of the rank."""
LORA_ATTENTION = ("q_proj", "v_proj", "output_proj")
LORA_TARGETS: tuple[LoraTarget, ...] = ("attention", "mlp")

GROUP_SIZE = 32
"""Weights that share one scale in 8da4w; the smallest of torchao's, the most accurate."""
NF4_BLOCK = 64
"""Most weights that share one scale in NF4, as in the QLoRA paper."""
NF4_SCALER_BLOCK = 256
"""Most scales that are quantized together."""
NF4_SMALLEST_BLOCK = 16
"""Below it the scales would take more than the weights gain."""
NF4_BYTES = (4 + 8 / NF4_BLOCK + 32 / NF4_BLOCK / NF4_SCALER_BLOCK) / 8
"""Bytes of a weight in NF4, its scale included."""


NOT_FOR_ROUNDED = "dpo"
"""The objective that compares with the base model in every step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """How a method differs from training all weights as they are."""

    adapter: bool = False
    """Only a low-rank adapter is trained."""
    magnitudes: bool = False
    """The adapter has a length for each row of the weights, as in DoRA."""
    nf4: bool = False
    """The frozen weights are kept in NF4."""
    fake_quantized: bool = False
    """Weights and activations are rounded in training as the quantized copy will round them."""


ADAPTER_OPTIONS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
"""Settings that shape an adapter."""

TRAITS: dict[Method, Traits] = {
    "lora": Traits(adapter=True),
    "full": Traits(),
    "dora": Traits(adapter=True, magnitudes=True),
    "qlora": Traits(adapter=True, nf4=True),
    "qat": Traits(fake_quantized=True),
    "qat-lora": Traits(adapter=True, fake_quantized=True),
}

ADAPTED = {
    "attention": (".q_proj.", ".v_proj.", ".o_proj.", ".qkv_proj."),
    "mlp": (".gate_proj.", ".up_proj.", ".down_proj.", ".gate_up_proj."),
    "output": ("lm_head.",),
}
"""Target -> parts of the names of the weights that have an adapter, as Hugging Face writes them."""
FUSED = {".qkv_proj.": 3, ".gate_up_proj.": 2}
"""Weights that are several matrices in one, each with an adapter of its own."""


def check(settings: Settings, model: Model) -> None:
    """Refuse by name what a method cannot do.

    Raises:
        SettingsError: options of an adapter without one, an objective or a model that the method
            makes no sense for.
    """
    traits = TRAITS[settings.method]
    named = f"--method {settings.method}"
    given = [name for name in ADAPTER_OPTIONS if getattr(settings, name)]
    if not traits.adapter and given:
        idle = [f"--{name.replace('_', '-')}" for name in given]
        raise SettingsError(
            f"{named} has no adapter that {' and '.join(idle)} could be for",
            where=idle[0],
            hint=f"leave it out, or choose --method {', '.join(_with_adapter())}",
        )
    if "output" in settings.lora_targets and is_tied(model):
        raise SettingsError(
            "the model's output head is its embedding, which cannot have an adapter",
            where="--lora-targets output",
            hint="leave output out",
        )
    if traits.fake_quantized:
        _check_fake_quantization(settings, model, named)


def _check_fake_quantization(settings: Settings, model: Model, named: str) -> None:
    if settings.objective == NOT_FOR_ROUNDED:
        raise SettingsError(
            "DPO measures how far the model moves from the base model, and fake quantization "
            "would count as a move",
            where=named,
            hint="train with dpo by another method, then with sft --method qat",
        )
    if settings.lora_dropout:
        raise SettingsError(
            "the adapter is merged in every step, so there is nothing to drop out",
            where=f"{named} --lora-dropout",
            hint="leave --lora-dropout out",
        )
    if "output" in settings.lora_targets:
        raise SettingsError(
            "the quantized copy keeps its output head as it is, so only layers are trained for it",
            where=f"{named} --lora-targets output",
            hint="leave output out",
        )
    for name, shape in linear_weights(model.tensors).items():
        if shape[1] % GROUP_SIZE:
            raise SettingsError(
                f"{name} has {shape[1]} columns, not a multiple of the group size {GROUP_SIZE}",
                where=named,
            )


def _with_adapter() -> list[str]:
    return [name for name, traits in TRAITS.items() if traits.adapter]


def model_arguments(settings: Settings) -> dict[str, Any]:
    """What a method adds to the arguments of the model's builder, named as torchtune names it."""
    traits = TRAITS[settings.method]
    if not traits.adapter:
        return {}
    targets = settings.lora_targets or LORA_TARGETS
    rank = settings.lora_rank or LORA_RANK
    return {
        "lora_attn_modules": list(LORA_ATTENTION) if "attention" in targets else [],
        "apply_lora_to_mlp": "mlp" in targets,
        **({"apply_lora_to_output": True} if "output" in targets else {}),
        "lora_rank": rank,
        "lora_alpha": settings.lora_alpha or ALPHA_OF_RANK * rank,
        "lora_dropout": settings.lora_dropout or 0.0,
        **({"use_dora": True} if traits.magnitudes else {}),
        **({"quantize_base": True} if traits.nf4 else {}),
    }


def quantizer(method: Method) -> dict[str, Any] | None:
    """The recipe's component that makes training round as the quantized copy will."""
    if not TRAITS[method].fake_quantized:
        return None
    component = "entrypoint.tune.fake_quantization.Int8DynActInt4WeightQATQuantizer"
    return {"_component_": component, "groupsize": GROUP_SIZE}


def is_tied(model: Model) -> bool:
    """Whether the output head is the embedding."""
    return "lm_head.weight" not in model.tensors


def linear_weights(tensors: Mapping[str, Shape]) -> dict[str, Shape]:
    """The matrices of the layers: not the embedding, nor the output head."""
    return {
        name: shape
        for name, shape in tensors.items()
        if len(shape) == 2 and name.startswith("model.layers.")
    }


def is_written_out(settings: Settings) -> bool:
    """Whether `tune/gradients.py` computes the layers: other methods use torchtune's own."""
    traits = TRAITS[settings.method]
    own = traits.magnitudes or traits.nf4 or traits.fake_quantized or settings.lora_dropout
    return not own


def trained_parameters(settings: Settings, model: Model) -> int:
    """Numbers that are trained; of fused weights an upper bound."""
    traits = TRAITS[settings.method]
    if not traits.adapter:
        return model.parameters
    rank = settings.lora_rank or LORA_RANK
    total = 0
    for name, (rows, columns) in adapted_weights(settings, model).items():
        fused = next((parts for part, parts in FUSED.items() if part in name), 1)
        total += rank * (rows + columns * fused) + traits.magnitudes * rows
    return total


def adapted_weights(settings: Settings, model: Model) -> dict[str, tuple[int, int]]:
    """Name -> rows and columns of the weights that have an adapter."""
    parts = [part for target in settings.lora_targets or LORA_TARGETS for part in ADAPTED[target]]
    return {
        name: (shape[0], shape[1])
        for name, shape in model.tensors.items()
        if len(shape) == 2 and any(part in name for part in parts)
    }


def nf4_blocks(numbers: int) -> tuple[int, int] | None:
    """How a weight, or one process's part of it, is divided for NF4.

    torchao divides by 64 and the scales by 256, which 576 x 576 (SmolLM2) is not a multiple of.

    Returns:
        Weights that share a scale, and scales that are quantized together, each the largest that
        divides evenly; None for a weight that stays as it is.
    """
    block = NF4_BLOCK
    while numbers % block:
        block //= 2
    if block < NF4_SMALLEST_BLOCK:
        return None
    scales = numbers // block
    together = next(size for size in range(NF4_SCALER_BLOCK, 0, -1) if scales % size == 0)
    return block, together
