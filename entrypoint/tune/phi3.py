"""Phi models that torchtune 0.6.1 has no builder for: Phi-3 and 3.5 with long context, Phi-4-mini.

They are torchtune's Phi-3 with another rotary embedding and, in Phi-4-mini, tied embeddings.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torchtune.models.phi3 import lora_phi3 as torchtunes_lora
from torchtune.models.phi3 import phi3 as torchtunes
from torchtune.models.phi3._position_embeddings import Phi3RotaryPositionalEmbeddings
from torchtune.modules import TiedLinear, TransformerDecoder


class PhiRope(Phi3RotaryPositionalEmbeddings):
    """Phi-3's rotary embedding over the first `dim` numbers of each head, with LongRoPE's factors.

    Args:
        dim: numbers of a head that are rotated; the others pass.
        factor: divides each of the dim / 2 frequencies; None leaves them.
        scale: multiplies cosine and sine.
    """

    theta: torch.Tensor
    cache: torch.Tensor

    def __init__(
        self, dim: int, max_seq_len: int, base: int, factor: Sequence[float] | None, scale: float
    ) -> None:
        self.factor, self.scale = factor, scale
        super().__init__(dim, max_seq_len, base)

    def build_rope_cache(self, max_seq_len: int = 4096) -> None:
        """[max_seq_len, 2 dim]: cosines, then sines."""
        if self.factor is not None:
            # recipes make the training's dtype torch's default: bf16 would blur the factors
            self.theta /= torch.tensor(self.factor, dtype=torch.float32, device=self.theta.device)
        super().build_rope_cache(max_seq_len)
        self.cache *= self.scale

    def forward(self, x: torch.Tensor, input_pos: torch.Tensor | None = None) -> torch.Tensor:
        """x, and what is returned: [batch, sequence, heads, head_dim]."""
        turned = super().forward(x[..., : self.dim], input_pos=input_pos)
        return torch.cat((turned, x[..., self.dim :]), dim=-1)


def phi3(
    *,
    rotary_dim: int,
    tie_word_embeddings: bool = False,
    short_factor: Sequence[float] | None = None,
    attention_factor: float = 1.0,
    **arguments: Any,
) -> TransformerDecoder:
    """torchtune's `phi3`, changed; the factors are LongRoPE's within the first context."""
    rope = _rope(arguments, rotary_dim, short_factor, attention_factor)
    return _change(torchtunes(**arguments), rope, tie_word_embeddings)


def lora_phi3(
    *,
    rotary_dim: int,
    tie_word_embeddings: bool = False,
    short_factor: Sequence[float] | None = None,
    attention_factor: float = 1.0,
    **arguments: Any,
) -> TransformerDecoder:
    """torchtune's `lora_phi3`, changed as in `phi3`."""
    rope = _rope(arguments, rotary_dim, short_factor, attention_factor)
    return _change(torchtunes_lora(**arguments), rope, tie_word_embeddings)


def _rope(
    arguments: dict[str, Any], dim: int, factor: Sequence[float] | None, scale: float
) -> PhiRope:
    numbers = None if factor is None else list(factor)
    return PhiRope(dim, arguments["max_seq_len"], arguments["rope_base"], numbers, scale)


def _change(model: TransformerDecoder, rope: PhiRope, tied: bool) -> TransformerDecoder:
    for layer in model.layers:
        layer.attn.pos_embeddings = rope
    if tied:
        del model.output
        model.output = TiedLinear(model.tok_embeddings)
    return model
