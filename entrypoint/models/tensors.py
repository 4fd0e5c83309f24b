"""Names and shapes of a decoder's weights, as Hugging Face writes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """What the header of a safetensors file says of one tensor."""

    shape: Shape
    dtype: str
    """As safetensors names it: BF16."""


TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
FOUR_NORMS = (*TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


def decoder_tensors(
    *,
    vocab: int,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    tied: bool,
    fused: bool = False,
    qkv_bias: bool = False,
    head_norms: bool = False,
    norms: tuple[str, ...] = TWO_NORMS,
) -> dict[str, Shape]:
    """Name -> shape of every weight.

    Args:
        tied: the output head is the embedding, and so is not in the files.
        fused: q, k and v are one matrix, gate and up another, as in Phi.
        qkv_bias: q, k and v have biases, as in Qwen2.
        head_norms: q and k have a norm over each head, as in Qwen3.
        norms: names of a layer's norms over the hidden size.
    """
    queries, keys = heads * head_dim, kv_heads * head_dim
    tensors: dict[str, Shape] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    if not tied:
        tensors["lm_head.weight"] = (vocab, hidden)
    layer: dict[str, Shape] = {f"{norm}.weight": (hidden,) for norm in norms}
    if fused:
        layer["self_attn.qkv_proj.weight"] = (queries + 2 * keys, hidden)
        layer["mlp.gate_up_proj.weight"] = (2 * inner, hidden)
    else:
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            layer[f"self_attn.{name}_proj.weight"] = (rows, hidden)
            if qkv_bias:
                layer[f"self_attn.{name}_proj.bias"] = (rows,)
        layer["mlp.gate_proj.weight"] = layer["mlp.up_proj.weight"] = (inner, hidden)
    if head_norms:
        layer["self_attn.q_norm.weight"] = layer["self_attn.k_norm.weight"] = (head_dim,)
    layer["self_attn.o_proj.weight"] = (hidden, queries)
    layer["mlp.down_proj.weight"] = (hidden, inner)
    for index in range(layers):
        tensors |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return tensors


def count(tensors: Mapping[str, Shape]) -> int:
    """Numbers in all tensors together."""
    return sum(prod(shape) for shape in tensors.values())
