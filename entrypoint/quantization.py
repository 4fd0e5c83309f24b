"""Quantize a Hugging Face folder with torchao. Imports torch only when it is called."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, get_args

from entrypoint.errors import ModelError, SettingsError
from entrypoint.files import share
from entrypoint.models.card import TORCH_DTYPE, is_quantized, read_config
from entrypoint.noise import hide_loading_bars
from entrypoint.settings import QuantizationMethod
from entrypoint.topology import World

METHODS: tuple[QuantizationMethod, ...] = get_args(QuantizationMethod)
GROUP_SIZE = 32
"""Weights that share one scale; the smallest of torchao's, the most accurate."""


def check(checkpoint: Path, output: Path) -> None:
    """Refuse before any work what `quantize` could not do.

    Raises:
        ModelError: no model there, one that is quantized already, or layers that the group size
            does not divide.
        SettingsError: `output` exists.
    """
    if is_quantized(checkpoint):
        raise ModelError("the model is quantized already", where=checkpoint)
    check_sizes(checkpoint)
    if output.exists():
        raise SettingsError(
            f"{output} exists already", where="--output or TRAIN_OUTPUT", hint="give another folder"
        )


def check_sizes(checkpoint: Path) -> None:
    """Refuse layers that groups do not divide.

    Raises:
        ModelError: names the size.
    """
    config = read_config(checkpoint / "config.json")
    for key in ("hidden_size", "intermediate_size"):
        if config.get(key, 0) % GROUP_SIZE:
            raise ModelError(
                f"{key} {config[key]} is not a multiple of the group size {GROUP_SIZE}",
                where=checkpoint / "config.json",
            )


def quantize(checkpoint: Path, method: QuantizationMethod, world: World, output: Path) -> None:
    """Write `checkpoint`, quantized, as a Hugging Face folder to `output`; whole or not at all.

    8da4w stores linear layers as 4-bit integers in groups of `GROUP_SIZE` and quantizes
    activations to 8 bits as they come; embeddings and the output head stay as they are.

    Raises:
        ModelError, SettingsError: see `check`.
    """
    check(checkpoint, output)
    import torch
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup
    from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig

    hide_loading_bars()
    configurations: dict[QuantizationMethod, Any] = {
        "8da4w": Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4,  # type: ignore[attr-defined]
            weight_granularity=PerGroup(GROUP_SIZE),
        )
    }
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=getattr(torch, TORCH_DTYPE[world.dtype]),
        quantization_config=TorchAoConfig(configurations[method]),
        device_map=world.device,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{method}-", dir=output.parent))
    try:
        model.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(scratch)
        share(scratch)
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def size_bytes(folder: Path) -> int:
    """Size of the weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
