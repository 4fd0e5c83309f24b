"""A quantized model in memory, made layer by layer from the files of another. Imports torch only
when called."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from entrypoint.errors import ModelError
from entrypoint.models.card import TORCH_DTYPE
from entrypoint.models.weights import CONVERT, find_shards
from entrypoint.progress import Steps
from entrypoint.schemes import GROUPED, Scheme
from entrypoint.topology import World


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
            raise AssertionError(f"{scheme.method} is not torchao's")


def quantizer(scheme: Scheme, world: World, alone: Collection[str]) -> Any:
    """transformers' quantizer, with the configuration that a copy's config.json names.

    Args:
        alone: names of the layers that are not quantized.
    """
    if scheme.method == "nf4":
        from entrypoint.quantization import nf4

        return nf4.quantizer(world, alone)
    from transformers import TorchAoConfig
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    written = TorchAoConfig(configuration(scheme, world), modules_to_not_convert=sorted(alone))
    return TorchAoHfQuantizer(written, pre_quantized=False)


def load(
    checkpoint: Path,
    scheme: Scheme,
    world: World,
    alone: Collection[str],
    rows: Sequence[Sequence[int]] = (),
) -> Any:
    """The model to be saved, each layer quantized as it is read.

    `from_pretrained` keeps the weight files mapped until the last layer is quantized: with what
    has been quantized by then, half as much memory again as the model.

    Args:
        alone: names of the layers that are not quantized.
        rows: token ids to round by; without any, each weight is rounded to nearest.

    Raises:
        ModelError: the files do not hold the weights that transformers' model has.
    """
    from transformers import GenerationConfig

    files = Files(checkpoint, world)
    model = files.model
    quantize_one = _quantization(scheme, world)
    if rows:
        _round_by(rows, files, scheme, world, alone)
    linear = set(linear_weights(model, alone))
    for name in files.unread():
        files.read(name)
        if name in linear:
            quantize_one(model, name.removesuffix(".weight"))
    model.tie_weights()
    model.hf_quantizer = quantizer(scheme, world, alone)
    model.config.quantization_config = model.hf_quantizer.quantization_config
    if (checkpoint / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(checkpoint)
    return model


def linear_weights(model: Any, alone: Collection[str]) -> Iterator[str]:
    """Names of the weights that are quantized.

    Args:
        alone: names of the layers that are not.
    """
    from torch import nn

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name not in alone:
            yield f"{name}.weight"


def weights(model: Any, scheme: Scheme) -> Iterator[tuple[str, Any]]:
    """A quantized model's weights by name, but for copies of others; those in NF4 as
    `entrypoint.quantization.packed.Packed`."""
    if scheme.method == "nf4":
        from entrypoint.quantization import nf4

        yield from nf4.weights(model)
    else:
        yield from model.named_parameters()


def _quantization(scheme: Scheme, world: World) -> Callable[[Any, str], None]:
    """What quantizes the layer of a model that is named."""
    if scheme.method == "nf4":
        from entrypoint.quantization import nf4

        return lambda model, name: nf4.put(
            model, name, nf4.to_nearest(model.get_submodule(name).weight)
        )
    from torchao.quantization import quantize_

    recipe = configuration(scheme, world)
    return lambda model, name: quantize_(model.get_submodule(name), recipe)


def _round_by(
    rows: Sequence[Sequence[int]],
    files: "Files",
    scheme: Scheme,
    world: World,
    alone: Collection[str],
) -> None:
    """Read and round all decoder layers by what reaches them of the rows."""
    from torch import nn

    from entrypoint.quantization.calibration import decoder_layers, round_layers

    model = files.model
    layers, head = decoder_layers(model), model.get_output_embeddings()
    # no others: a layer that is replaced would stay in memory
    named = {layers, head, *layers}
    names = {module: name for name, module in model.named_modules() if module in named}
    within = names[layers] + "."
    # what stands around the layers; an output head is not needed, and quantized later
    around = names.get(head, "") + "."
    for name in files.unread():
        if not name.startswith((within, around)):
            files.read(name)

    def fill(layer: nn.Module) -> None:
        for name in files.unread():
            if name.startswith(names[layer] + "."):
                files.read(name)

    with Steps("rounding by rows, layer", len(layers)) as steps:
        round_layers(
            model,
            rows,
            fill=fill,
            alone={model.get_submodule(name) for name in alone},
            way=_way(model, scheme, world),
            done=steps.advance,
        )


def _way(model: Any, scheme: Scheme, world: World) -> Any:
    """How a scheme rounds by rows: 4 bits by GPTQ, activations with their weight by SmoothQuant."""
    if scheme.method == "nf4":
        from entrypoint.quantization import nf4

        return nf4.way(model)
    from torch import nn
    from torchao.quantization import quantize_

    from entrypoint.quantization.calibration import Moment, Spread, Way
    from entrypoint.quantization.rounding import Inputs, Integers, compensated, fitted_scales
    from entrypoint.quantization.smoothing import Sample, smoothing

    recipe = configuration(scheme, world)

    def compensate(linear: nn.Linear, inputs: Inputs) -> None:
        grid, weight = Integers(), linear.weight
        scale = fitted_scales(weight, scheme.group_size, inputs.importance, grid)
        codes = compensated(weight, inputs, scale, grid)
        quantize_(linear, recipe)
        # torchao's own form, with better numbers in it
        form: Any = linear.weight
        form.qdata.copy_(codes)
        form.scale.copy_(scale)

    def smooth(linear: nn.Linear, sample: Sample) -> None:
        factors = smoothing(linear.weight, sample)
        linear.weight.div_(factors)
        quantize_(linear, recipe)
        form: Any = linear.weight
        # torchao multiplies by it what comes, before it rounds
        form.act_pre_scale = factors

    if scheme.method in GROUPED:
        return Way(keep=Moment, round_one=compensate)
    return Way(keep=Spread, round_one=smooth)


class Files:
    """A model without weights, and the files that they are in.

    Raises:
        ModelError: the files do not hold all that transformers' model has.
    """

    def __init__(self, checkpoint: Path, world: World) -> None:
        import torch
        from accelerate import init_empty_weights
        from safetensors import safe_open
        from transformers import AutoConfig, AutoModelForCausalLM

        self.device, self.dtype = world.device, getattr(torch, TORCH_DTYPE[world.dtype])
        # frequencies of positions are in no file
        with init_empty_weights(include_buffers=False):
            self.model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(checkpoint), dtype=self.dtype
            )
        self._file: dict[str, Path] = {}
        wanted = set(self.model.state_dict()) - set(self.model.all_tied_weights_keys)
        for shard in find_shards(checkpoint):
            with safe_open(checkpoint / shard, framework="pt") as header:
                names = sorted(wanted & set(header.keys()))
            self._file |= dict.fromkeys(names, checkpoint / shard)
        if missing := wanted - self._file.keys():
            raise ModelError(
                f"the weight files have no {min(missing)}, which transformers' "
                f"{type(self.model).__name__} has",
                where=checkpoint,
                hint=CONVERT,
            )

    def unread(self) -> list[str]:
        """Names of what is in files still, file by file."""
        return list(self._file)

    def read(self, name: str) -> None:
        """Put a tensor into its place in the model, in its number format and on its device."""
        from safetensors import safe_open
        from torch import nn

        # a handle for each: what is read stays in memory as long as its handle
        with safe_open(self._file.pop(name), framework="pt") as file:
            tensor = file.get_tensor(name).to(self.device, self.dtype, copy=True)
        path, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(path)
        if leaf in module._buffers:
            module._buffers[leaf] = tensor
        else:
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
