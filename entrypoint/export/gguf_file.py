"""Write a Hugging Face folder as one GGUF file, for llama.cpp and what is built on it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from entrypoint.errors import ModelError
from entrypoint.export.vocabulary import Vocabulary
from entrypoint.models.weights import COMPUTED, find_shards
from entrypoint.settings import GgufType

Array = npt.NDArray[Any]

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""transformers' class -> llama.cpp's architecture; both compute the same."""
PERMUTED = "llama"
"""Its rotary embedding turns neighbours (0, 1), (2, 3), ..., transformers' turns halves."""
BLOCK = 32
"""Weights that share a scale in all of these types."""
TYPES: dict[GgufType, gguf.GGMLQuantizationType] = {
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
    "q4_1": gguf.GGMLQuantizationType.Q4_1,
}
FILE_TYPES: dict[GgufType, gguf.LlamaFileType] = {
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
}
EMBEDDINGS = ("token_embd.weight", "output.weight")
"""Kept in 8 bits where the rest has 4, as llama.cpp keeps them finer than the rest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope:
    """How positions are scaled."""

    theta: float
    linear: float | None = None
    """Positions are divided by it."""
    factors: tuple[float, ...] = ()
    """Each frequency is divided by its factor: Llama 3.1's scaling."""


def check(config: Mapping[str, Any], where: object) -> None:
    """Refuse what the file could not say to llama.cpp.

    Raises:
        ModelError: the architecture or the scaling of positions, by name.
    """
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"the architecture {architecture} has no GGUF export; {', '.join(ARCHITECTURES)} have",
            where=where,
            hint="use --to hf, and llama.cpp's own convert_hf_to_gguf.py",
        )
    rope(config, where)


def rope(config: Mapping[str, Any], where: object) -> Rope:
    """The scaling of positions that config.json describes, in either of transformers' spellings.

    Raises:
        ModelError: one that has no place in these files.
    """
    given = config.get("rope_parameters") or {}
    scaling = {**(config.get("rope_scaling") or {}), **given}
    theta = float(given.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return Rope(theta=theta)
    if kind == "linear":
        return Rope(theta=theta, linear=float(scaling["factor"]))
    if kind == "llama3":
        return Rope(theta=theta, factors=llama3_factors(scaling, theta, head_dim(config)))
    raise ModelError(
        f"positions scaled by {kind} have no GGUF export; default, linear and llama3 have",
        where=where,
        hint="use --to hf, and llama.cpp's own convert_hf_to_gguf.py",
    )


def llama3_factors(scaling: Mapping[str, Any], theta: float, size: int) -> tuple[float, ...]:
    """What llama.cpp divides each frequency by, so that it is Llama 3.1's.

    Long wavelengths are stretched by `factor`, short ones not, those between by interpolation:
    transformers' `_compute_llama3_parameters`.
    """
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    factors = []
    for index in range(0, size, 2):
        wavelength = 2 * pi * theta ** (index / size)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(float(factor))
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(factors)


def head_dim(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def permute(weight: Array, heads: int) -> Array:
    """Rows of q or k in llama.cpp's order: halves of each head interleaved.

    weight: [heads * head_dim, ...]; returns the same shape.
    """
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(
    folder: Path,
    path: Path,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    kind: GgufType,
    *,
    name: str,
    licence: str | None,
) -> None:
    """Write the file; weights pass through memory one at a time.

    Args:
        kind: number format of the matrices; vectors stay in fp32.

    Raises:
        ModelError: see `check`, or a weight that fp16 cannot hold.
    """
    check(config, folder)
    architecture = ARCHITECTURES[config["architectures"][0]]
    writer = gguf.GGUFWriter(path, architecture)
    try:
        _describe(writer, config, kind, folder, name=name, licence=licence)
        vocabulary.write(writer)
        for tensor, shape in _shapes(folder, config, architecture):
            stored = _type(tensor, shape, kind)
            size = gguf.quant_shape_to_byte_shape(shape, stored)
            by_byte = stored not in (
                gguf.GGMLQuantizationType.F32,
                gguf.GGMLQuantizationType.F16,
            )
            number = np.float32 if stored is gguf.GGMLQuantizationType.F32 else np.float16
            writer.add_tensor_info(
                tensor,
                size if by_byte else shape,
                np.dtype(np.uint8 if by_byte else number),
                int(np.prod(size, dtype=np.int64)),
                raw_dtype=stored if by_byte else None,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, weight in _tensors(folder, config, architecture):
            stored = _type(tensor, weight.shape, kind)
            if stored is gguf.GGMLQuantizationType.F16 and np.abs(weight).max() > 65504:
                raise ModelError(f"{tensor} has numbers that fp16 cannot hold", where=folder)
            writer.write_tensor_data(gguf.quantize(np.ascontiguousarray(weight), stored))
    finally:
        writer.close()


def _describe(
    writer: gguf.GGUFWriter,
    config: Mapping[str, Any],
    kind: GgufType,
    where: object,
    *,
    name: str,
    licence: str | None,
) -> None:
    scaled = rope(config, where)
    heads = config["num_attention_heads"]
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(scaled.theta)
    if scaled.linear:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaled.linear)
    if window := config.get("sliding_window"):
        writer.add_sliding_window(window)


def _type(name: str, shape: tuple[int, ...], kind: GgufType) -> gguf.GGMLQuantizationType:
    if len(shape) < 2:
        return gguf.GGMLQuantizationType.F32
    if shape[-1] % BLOCK:
        return gguf.GGMLQuantizationType.F16
    if kind.startswith("q4") and name in EMBEDDINGS:
        return gguf.GGMLQuantizationType.Q8_0
    return TYPES[kind]


def _shapes(
    folder: Path, config: Mapping[str, Any], architecture: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What `_tensors` yields, without reading weights."""
    from safetensors import safe_open

    if factors := rope(config, folder).factors:
        yield "rope_freqs.weight", (len(factors),)
    for shard, name in _names(folder, config):
        with safe_open(folder / shard, framework="np") as file:
            shape = tuple(file.get_slice(name).get_shape())
        yield _renamed(name, config, architecture, folder), shape


def _tensors(
    folder: Path, config: Mapping[str, Any], architecture: str
) -> Iterator[tuple[str, Array]]:
    import torch
    from safetensors import safe_open

    if factors := rope(config, folder).factors:
        yield "rope_freqs.weight", np.asarray(factors, dtype=np.float32)
    heads = config["num_attention_heads"]
    of_kind = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}
    for shard, name in _names(folder, config):
        with safe_open(folder / shard, framework="pt") as file:
            weight = file.get_tensor(name).to(torch.float32, copy=True).numpy()
        layer = name.split(".")[-2]
        if architecture == PERMUTED and layer in of_kind:
            weight = permute(weight, of_kind[layer])
        yield _renamed(name, config, architecture, folder), weight


def _names(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """File and name of every weight; a head that is the embedding has none in GGUF."""
    from safetensors import safe_open

    for shard in find_shards(folder):
        with safe_open(folder / shard, framework="np") as file:
            names = sorted(file.keys())
        for name in names:
            tied = config.get("tie_word_embeddings") and name == "lm_head.weight"
            if not tied and not name.endswith(COMPUTED):
                yield shard, name


def _renamed(name: str, config: Mapping[str, Any], architecture: str, where: object) -> str:
    kinds = {found: kind for kind, found in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(kinds[architecture], config["num_hidden_layers"])
    renamed = table.get_name(name, try_suffixes=(".weight", ".bias"))
    if renamed is None:
        raise ModelError(f"{name} has no place in a GGUF file of {architecture}", where=where)
    return str(renamed)
