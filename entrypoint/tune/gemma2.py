"""Gemma 2 with the cap where the model has it: on the logits.

torchtune 0.6.1 applies final_logit_softcapping to the hidden states before the output head, so
its logits are others than transformers'. The second defect, swapped norms, is mended in `mend`.
"""

from typing import Any

import torch
from torch import nn
from torchtune.models.gemma2 import gemma2 as torchtunes
from torchtune.models.gemma2 import lora_gemma2 as torchtunes_lora
from torchtune.modules import TiedLinear, TransformerDecoder


class CappedTiedLinear(TiedLinear):
    """The embedding as output head, its logits kept within (-cap, cap) by tanh."""

    def __init__(self, tied_module: nn.Module, cap: float) -> None:
        super().__init__(tied_module)
        self.cap = cap

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().__call__(x) / self.cap) * self.cap


def gemma2(*, final_capping_value: float | None, **arguments: Any) -> TransformerDecoder:
    """torchtune's `gemma2`; None leaves the logits as they are."""
    return _cap_logits(torchtunes(**arguments), final_capping_value)


def lora_gemma2(*, final_capping_value: float | None, **arguments: Any) -> TransformerDecoder:
    """torchtune's `lora_gemma2`; None leaves the logits as they are."""
    return _cap_logits(torchtunes_lora(**arguments), final_capping_value)


def _cap_logits(model: TransformerDecoder, cap: float | None) -> TransformerDecoder:
    model.norm.logit_capping = nn.Identity()
    if cap is not None:
        model.output = CappedTiedLinear(model.tok_embeddings, cap)
    return model
