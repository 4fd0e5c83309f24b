"""Quantize a Hugging Face folder with torchao. Imports torch only when it is called."""

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from entrypoint import allocator
from entrypoint.errors import ModelError, SettingsError
from entrypoint.files import share
from entrypoint.models.card import TORCH_DTYPE, is_quantized, read_config
from entrypoint.models.weights import CONVERT, check_whole, find_shards
from entrypoint.noise import hide_loading_bars
from entrypoint.schemes import Scheme, check_config, check_device, skipped
from entrypoint.topology import World

SHARD = "500MB"
"""Size of weight files: safetensors copies a whole file's tensors before it writes them."""


def check(checkpoint: Path, scheme: Scheme, world: World, output: Path) -> None:
    """Refuse before any work what `quantize` could not do.

    Raises:
        ModelError: no model there, one that is quantized already, or layers that the group size
            does not divide.
        SettingsError: `output` exists, or the device cannot run the method.
    """
    check_device(scheme, world, capability(world))
    if is_quantized(checkpoint):
        raise ModelError(
            "the model is quantized already",
            where=checkpoint,
            hint="quantize the model that it was made from",
        )
    layers_left_alone(checkpoint, scheme)
    if output.exists():
        raise SettingsError(
            f"{output} exists already", where="--output or TRAIN_OUTPUT", hint="give another folder"
        )


def capability(world: World) -> tuple[int, int] | None:
    """CUDA's number for what the first GPU can do; None without one."""
    if world.device != "cuda":
        return None
    import torch

    return torch.cuda.get_device_capability()


def check_sizes(checkpoint: Path, scheme: Scheme) -> None:
    """Refuse layers that groups do not divide, from config.json alone.

    Raises:
        ModelError: names the size.
    """
    path = checkpoint / "config.json"
    check_config(read_config(path), scheme, path)


def layers_left_alone(checkpoint: Path, scheme: Scheme) -> tuple[str, ...]:
    """Names of the layers that are not quantized; see `entrypoint.schemes.skipped`."""
    stored = check_whole(checkpoint, find_shards(checkpoint))
    shapes = {name: one.shape for name, one in stored.items()}
    return skipped(scheme, shapes, checkpoint)


def configuration(scheme: Scheme, world: World) -> Any:
    """torchao's configuration of a scheme.

    Version 2 of the int8 ones is what torchao 0.17 can write as safetensors.
    """
    import torch
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int4WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8DynamicActivationIntxWeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerGroup,
        PerRow,
    )

    int4 = torch.int4  # type: ignore[attr-defined]
    groups = PerGroup(scheme.group_size)
    match scheme.method:
        case "8da4w":
            return Int8DynamicActivationIntxWeightConfig(
                weight_dtype=int4, weight_granularity=groups
            )
        case "int8-weight-only":
            return Int8WeightOnlyConfig(version=2)
        case "int8-dynamic":
            return Int8DynamicActivationInt8WeightConfig(version=2)
        case "int4-weight-only" if world.device == "cuda":
            return Int4WeightOnlyConfig(
                group_size=scheme.group_size, int4_packing_format="tile_packed_to_4d"
            )
        case "int4-weight-only":
            # torchao 0.17 has no packed int4 weights for a CPU that it can write as safetensors
            return IntxWeightOnlyConfig(weight_dtype=int4, granularity=groups)
        case "fp8":
            return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
        case _:
            raise AssertionError(f"check_device lets {scheme.method} through")


def quantize(checkpoint: Path, scheme: Scheme, world: World, output: Path) -> None:
    """Write `checkpoint`, quantized, as a Hugging Face folder to `output`; whole or not at all.

    Raises:
        ModelError, SettingsError: see `check`.
    """
    check(checkpoint, scheme, world, output)
    from transformers import AutoTokenizer

    hide_loading_bars()
    allocator.give_back_large_blocks()
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{scheme.method}-", dir=output.parent))
    try:
        alone = layers_left_alone(checkpoint, scheme)
        model = load(checkpoint, scheme, world, alone)
        model.save_pretrained(scratch, max_shard_size=SHARD)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(scratch)
        share(scratch)
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load(checkpoint: Path, scheme: Scheme, world: World, alone: Collection[str]) -> Any:
    """The model to be saved, each layer quantized as it is read; not to be computed with.

    `from_pretrained` keeps the weight files mapped until the last layer is quantized: with what
    has been quantized by then, half as much memory again as the model.

    Args:
        alone: names of the layers that are not quantized.

    Raises:
        ModelError: the files do not hold the weights that transformers' model has.
    """
    import torch
    from safetensors import safe_open
    from torch import nn
    from torchao.quantization import quantize_
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, TorchAoConfig
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    dtype = getattr(torch, TORCH_DTYPE[world.dtype])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(checkpoint), dtype=dtype
        )
    recipe = configuration(scheme, world)
    missing = set(model.state_dict()) - set(model.all_tied_weights_keys)
    for shard in find_shards(checkpoint):
        with safe_open(checkpoint / shard, framework="pt") as header:
            names = set(header.keys())
        for name in sorted(names & missing):
            # a handle for each: what is read stays in memory as long as its handle
            with safe_open(checkpoint / shard, framework="pt") as file:
                tensor = file.get_tensor(name).to(world.device, dtype, copy=True)
            path, _, leaf = name.rpartition(".")
            module = model.get_submodule(path)
            if leaf in module._buffers:
                module._buffers[leaf] = tensor
            else:
                module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
            if isinstance(module, nn.Linear) and leaf == "weight" and path not in alone:
                quantize_(module, recipe)
        missing -= names
    if missing:
        raise ModelError(
            f"the weight files have no {min(missing)}, which transformers' "
            f"{type(model).__name__} has",
            where=checkpoint,
            hint=CONVERT,
        )
    model.tie_weights()
    written = TorchAoConfig(recipe, modules_to_not_convert=sorted(alone))
    model.hf_quantizer = TorchAoHfQuantizer(written, pre_quantized=False)
    model.config.quantization_config = written
    if (checkpoint / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(checkpoint)
    return model


def size_bytes(folder: Path) -> int:
    """Size of the weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
