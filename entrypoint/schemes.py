"""Which way a model is quantized, and what that is refused for. Pure: no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args

from entrypoint.errors import ModelError, SettingsError
from entrypoint.methods import GROUP_SIZE, NF4_BLOCK, TRAITS
from entrypoint.models.tensors import Shape
from entrypoint.settings import QuantizationMethod, Settings
from entrypoint.topology import World

METHODS: tuple[QuantizationMethod, ...] = get_args(QuantizationMethod)
GROUP_SIZES = (32, 64, 128, 256)
CALIBRATION_ROWS = 128
"""Samples to round by, as many as in the GPTQ paper."""
HEAD = "lm_head"
"""The output head's name in transformers' models."""
GROUPED: tuple[QuantizationMethod, ...] = ("8da4w", "int4-weight-only")
"""Methods whose weights share scales in groups of a chosen size."""
BY_ROWS: Mapping[QuantizationMethod, str] = {
    "8da4w": "gptq",
    "int4-weight-only": "gptq",
    "nf4": "gptq",
    "int8-dynamic": "smoothquant",
}
"""How methods round that sample rows can tell how to."""
FP8_CAPABILITY = (8, 9)
"""CUDA's number for the first GPUs that multiply in fp8 (Ada; Hopper is 9.0)."""
INT4_CAPABILITY = (8, 0)
"""For torchao's packed int4 weights."""
NF4_ROWS = 32
"""bitsandbytes 0.50 multiplies so many rows of an NF4 weight at a time, on a CPU that has bf16
arithmetic, and takes no others."""

NO_GROUPS = "use int8-weight-only or int8-dynamic, which have no groups"
WHERE = "--method or TRAIN_QUANTIZE_METHOD"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """How to quantize."""

    method: QuantizationMethod = "8da4w"
    group_size: int = GROUP_SIZE
    """Weights that share one scale, where the method has groups."""
    skip: tuple[str, ...] = (HEAD,)
    """Patterns, as a shell's, of layers that stay as they are."""


def chosen(method: QuantizationMethod, group_size: int | None, skip: tuple[str, ...]) -> Scheme:
    """The scheme that the options ask for.

    Raises:
        SettingsError: a group size for a method without groups.
    """
    if group_size and method == "nf4":
        raise SettingsError(
            f"nf4 has one scale for each {NF4_BLOCK} weights, and no other groups",
            where="--group-size or TRAIN_GROUP_SIZE",
            hint=f"leave it out, or choose --method {' or '.join(GROUPED)}",
        )
    if group_size and method not in GROUPED:
        raise SettingsError(
            f"{method} has one scale for each row of a weight, and no groups",
            where="--group-size or TRAIN_GROUP_SIZE",
            hint=f"leave it out, or choose --method {' or '.join(GROUPED)}",
        )
    return Scheme(method=method, group_size=group_size or GROUP_SIZE, skip=skip)


def of_run(settings: Settings) -> tuple[Scheme, ...]:
    """The quantized copies that a run makes after training.

    Raises:
        SettingsError: methods for copies that are not made.
    """
    if "quantize" in settings.then:
        return tuple(Scheme(method=one) for one in settings.quantize_methods) or (Scheme(),)
    if settings.quantize_methods:
        raise SettingsError(
            "no quantized copy is made",
            where="--quantize-method or TRAIN_QUANTIZE_METHOD",
            hint="add quantize to --then, before eval if the copy shall be scored too",
        )
    return ()


def is_trained_for(scheme: Scheme, method: str | None) -> bool:
    """Whether training by `method` of `train sft` has rounded as this scheme does."""
    traits = TRAITS.get(method) if method else None  # type: ignore[call-overload]
    return traits is not None and traits.fake_quantized and scheme == Scheme()


def can_round_by_rows(scheme: Scheme, world: World) -> bool:
    """Whether sample rows can tell how to round: to 4 bits, but for int4 that is packed for a GPU,
    and activations to 8 bits beside a weight of as many."""
    packed = scheme.method == "int4-weight-only" and world.device == "cuda"
    return scheme.method in BY_ROWS and not packed


def check_device(scheme: Scheme, world: World, capability: tuple[int, int] | None = None) -> None:
    """Refuse by name what this device cannot run.

    Args:
        capability: of the GPU, where there is one.

    Raises:
        SettingsError: says what can be used instead.
    """
    if scheme.method == "fp8":
        if world.device != "cuda" or (capability or (0, 0)) < FP8_CAPABILITY:
            raise SettingsError(
                f"fp8 needs a GPU that multiplies in it (CUDA capability 8.9 or later); "
                f"the device is {_named(world, capability)}",
                where=WHERE,
                hint="use int8-weight-only or int8-dynamic, which have 8 bits too",
            )
        _need_bf16(scheme, world)
    if scheme.method == "int4-weight-only" and world.device == "cuda":
        if (capability or (0, 0)) < INT4_CAPABILITY:
            raise SettingsError(
                f"int4-weight-only needs CUDA capability 8.0 or later; "
                f"the device is {_named(world, capability)}",
                where=WHERE,
                hint="use 8da4w or int8-weight-only, or --device cpu",
            )
        _need_bf16(scheme, world)
    if scheme.method in ("int8-dynamic", "int4-weight-only") and world.device == "mps":
        raise SettingsError(
            f"torchao has no {scheme.method} for mps",
            where=WHERE,
            hint="use int8-weight-only, or --device cpu",
        )


def _need_bf16(scheme: Scheme, world: World) -> None:
    if world.dtype != "bf16":
        raise SettingsError(
            f"{scheme.method} multiplies in bf16 on a GPU, and the number format is {world.dtype}",
            where="--dtype or TRAIN_DTYPE",
            hint="use --dtype bf16",
        )


def _named(world: World, capability: tuple[int, int] | None) -> str:
    if capability is None:
        return world.device
    return f"{world.device} of capability {capability[0]}.{capability[1]}"


def check_config(config: Mapping[str, Any], scheme: Scheme, where: object) -> None:
    """Refuse sizes that groups or blocks do not divide, before there are weights to look at.

    Raises:
        ModelError: names the size.
    """
    for key in ("hidden_size", "intermediate_size"):
        size = config.get(key) or 0
        if scheme.method in GROUPED and size % scheme.group_size:
            raise ModelError(
                f"{key} {size} is not a multiple of the group size {scheme.group_size}",
                where=where,
                hint=_fitting([size]),
            )
        if scheme.method == "nf4" and size % NF4_BLOCK:
            raise ModelError(
                f"{key} {size} is not a multiple of NF4's block of {NF4_BLOCK}",
                where=where,
                hint=NO_GROUPS,
            )
    if scheme.method == "nf4" and "head_dim" in config:
        keys = config["head_dim"] * (config.get("num_key_value_heads") or 0)
        if keys % NF4_ROWS:
            raise ModelError(
                f"num_key_value_heads times head_dim, {keys}, is not a multiple of the {NF4_ROWS} "
                "rows that bitsandbytes takes at a time",
                where=where,
                hint=NO_GROUPS,
            )


def skipped(scheme: Scheme, tensors: Mapping[str, Shape], where: object) -> tuple[str, ...]:
    """Names of the layers that stay as they are.

    Args:
        tensors: name -> shape of all weights.

    Raises:
        SettingsError: a pattern that no layer has, or that leaves nothing.
        ModelError: a layer that groups or blocks do not divide.
    """
    matrices = {
        name.removesuffix(".weight"): shape
        for name, shape in tensors.items()
        if len(shape) == 2 and name.endswith(".weight") and "embed" not in name
    }
    # a head that is the embedding has no weight of its own, and is never quantized
    left = {name for name in matrices if _matches(name, scheme.skip)}
    for pattern in scheme.skip:
        if pattern != HEAD and not any(_matches(name, (pattern,)) for name in matrices):
            raise SettingsError(
                f"no layer is called {pattern}",
                where="--skip or TRAIN_SKIP",
                hint=f"layers have names like {min(matrices, default=HEAD)}; "
                "'*.down_proj' stands for all of them with this end",
            )
    quantized = matrices.keys() - left
    if not quantized:
        raise SettingsError("nothing would be quantized", where="--skip or TRAIN_SKIP")
    if scheme.method in GROUPED:
        for name in sorted(quantized):
            if (columns := matrices[name][1]) % scheme.group_size:
                raise ModelError(
                    f"{name} has {columns} columns, not a multiple of the group size "
                    f"{scheme.group_size}",
                    where=where,
                    hint=f"{_fitting(matrices[one][1] for one in quantized)}, or leave the layer "
                    f"alone with --skip {name}",
                )
    if scheme.method == "nf4":
        for name in sorted(quantized):
            _check_blocks(name, matrices[name], where)
    return tuple(sorted(left | ({HEAD} if HEAD + ".weight" not in tensors else set())))


def _check_blocks(name: str, shape: Shape, where: object) -> None:
    rows, columns = shape
    if columns % NF4_BLOCK:
        raise ModelError(
            f"{name} has {columns} columns, not a multiple of NF4's block of {NF4_BLOCK}",
            where=where,
            hint=f"{NO_GROUPS}, or leave the layer alone with --skip {name}",
        )
    if rows % NF4_ROWS:
        raise ModelError(
            f"{name} has {rows} rows, not a multiple of the {NF4_ROWS} that bitsandbytes takes "
            "at a time",
            where=where,
            hint=f"{NO_GROUPS}, or leave the layer alone with --skip {name}",
        )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _fitting(sizes: Iterable[int]) -> str:
    sizes = tuple(sizes)
    fitting = [size for size in GROUP_SIZES if not any(one % size for one in sizes)]
    if not fitting:
        return NO_GROUPS
    return f"use --group-size {' or '.join(map(str, fitting))}"
