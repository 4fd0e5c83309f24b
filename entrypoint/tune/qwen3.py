"""Qwen3 (dense) from torchtune's modules; torchtune 0.6.1 has no builder for it.

It differs from Qwen2 in three things: no biases, a head_dim of its own, and a norm over each head
of q and k before the rotary embedding. torchtune's attention has its q and k norms after it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchtune.models.qwen2._component_builders import lora_qwen2_mlp, qwen2_mlp
from torchtune.models.qwen2._positional_embeddings import Qwen2RotaryPositionalEmbeddings
from torchtune.modules import (
    MultiHeadAttention,
    RMSNorm,
    TiedLinear,
    TransformerDecoder,
    TransformerSelfAttentionLayer,
)
from torchtune.modules.common_utils import _register_reparametrize_state_dict_hooks
from torchtune.modules.peft import DoRALinear, LoRALinear


class HeadNormAttention(MultiHeadAttention):
    """Causal self-attention that norms every head of q and k before it rotates them."""

    def __init__(self, *, norm_eps: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.q_norm = RMSNorm(self.head_dim, eps=norm_eps)
        self.k_norm = RMSNorm(self.head_dim, eps=norm_eps)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None = None,
        *,
        mask: Any = None,
        input_pos: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x, y and what is returned: [batch, sequence, embed_dim]; y is x, as for the parent."""
        if y is None:
            raise ValueError("Qwen3 has self-attention alone: y must be given")
        q = self.q_norm(self._heads(self.q_proj(x)))
        k = self.k_norm(self._heads(self.k_proj(y)))
        v = self._heads(self.v_proj(y)).transpose(1, 2)
        q = self.pos_embeddings(q, input_pos=input_pos).transpose(1, 2)
        k = self.pos_embeddings(k, input_pos=input_pos).transpose(1, 2)
        if self.kv_cache is not None and self.cache_enabled:
            k, v = self.kv_cache.update(k, v)
        repeats = self.num_heads // self.num_kv_heads
        attended = self._attention_call(
            q,
            k.repeat_interleave(repeats, dim=1),
            v.repeat_interleave(repeats, dim=1),
            mask=mask,
            dropout_p=self.attn_dropout if self.training else 0.0,
            is_causal=self.kv_cache is None and mask is None and self.is_causal,
        )
        output: torch.Tensor = self.output_proj(attended.transpose(1, 2).flatten(2))
        return output

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.reshape(*projected.shape[:-1], -1, self.head_dim)


def qwen3(**arguments: Any) -> TransformerDecoder:
    """The decoder; the arguments are `lora_qwen3`'s without LoRA's."""
    return lora_qwen3(lora_attn_modules=(), lora_rank=1, lora_alpha=1.0, **arguments)


def lora_qwen3(
    *,
    lora_attn_modules: Sequence[str],
    apply_lora_to_mlp: bool = False,
    vocab_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    embed_dim: int,
    intermediate_dim: int,
    max_seq_len: int,
    attn_dropout: float = 0.0,
    norm_eps: float = 1e-6,
    rope_base: float = 1_000_000,
    tie_word_embeddings: bool = False,
    lora_rank: int,
    lora_alpha: float,
    lora_dropout: float = 0.0,
    use_dora: bool = False,
    quantize_base: bool = False,
) -> TransformerDecoder:
    """The decoder with adapters; arguments as in torchtune's `lora_qwen2`, and `head_dim`."""
    adapter = {
        "lora_rank": lora_rank,
        "lora_alpha": lora_alpha,
        "lora_dropout": lora_dropout,
        "use_dora": use_dora,
        "quantize_base": quantize_base,
    }

    def linear(name: str, inputs: int, outputs: int) -> nn.Module:
        if name not in lora_attn_modules:
            return nn.Linear(inputs, outputs, bias=False)
        adapted: nn.Module = (DoRALinear if use_dora else LoRALinear)(
            inputs,
            outputs,
            rank=lora_rank,
            alpha=lora_alpha,
            dropout=lora_dropout,
            quantize_base=quantize_base,
        )
        return adapted

    rope = Qwen2RotaryPositionalEmbeddings(head_dim, max_seq_len, rope_base)
    queries, keys = num_heads * head_dim, num_kv_heads * head_dim
    layers = nn.ModuleList()
    for _ in range(num_layers):
        attention = HeadNormAttention(
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            q_proj=linear("q_proj", embed_dim, queries),
            k_proj=linear("k_proj", embed_dim, keys),
            v_proj=linear("v_proj", embed_dim, keys),
            output_proj=linear("output_proj", queries, embed_dim),
            pos_embeddings=rope,
            max_seq_len=max_seq_len,
            attn_dropout=attn_dropout,
            norm_eps=norm_eps,
        )
        mlp = (
            lora_qwen2_mlp(dim=embed_dim, hidden_dim=intermediate_dim, **adapter)
            if apply_lora_to_mlp
            else qwen2_mlp(dim=embed_dim, hidden_dim=intermediate_dim)
        )
        layers.append(
            TransformerSelfAttentionLayer(
                attn=attention,
                mlp=mlp,
                sa_norm=RMSNorm(embed_dim, eps=norm_eps),
                mlp_norm=RMSNorm(embed_dim, eps=norm_eps),
            )
        )
    embeddings = nn.Embedding(vocab_size, embed_dim)
    model = TransformerDecoder(
        tok_embeddings=embeddings,
        layers=layers,
        max_seq_len=max_seq_len,
        num_heads=num_heads,
        head_dim=head_dim,
        norm=RMSNorm(embed_dim, eps=norm_eps),
        output=TiedLinear(embeddings)
        if tie_word_embeddings
        else nn.Linear(embed_dim, vocab_size, bias=False),
    )
    if quantize_base:
        _register_reparametrize_state_dict_hooks(model, dtype=embeddings.weight.dtype)
    return model
