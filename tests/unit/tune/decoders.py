"""Small random decoders of torchtune's, with output heads of every kind."""

from typing import Any

import torch

SIZES = {
    "vocab_size": 31, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8,
    "embed_dim": 16, "intermediate_dim": 16, "max_seq_len": 32,
}  # fmt: skip


def model(kind: str) -> Any:
    from torchtune.models.llama3_2 import llama3_2
    from torchtune.models.qwen2 import lora_qwen2

    from entrypoint.tune.gemma2 import gemma2

    torch.manual_seed(0)
    sizes = {name: value for name, value in SIZES.items() if name != "head_dim"}
    if kind == "capped":
        return gemma2(
            **SIZES, sliding_window_size=8, query_pre_attn_scalar=8, hidden_capping_value=5.0,
            final_capping_value=0.5,
        )  # fmt: skip
    if kind == "adapted":
        made = lora_qwen2(
            ["q_proj"], True, True, **sizes, lora_rank=2, lora_alpha=4, tie_word_embeddings=False
        )
        torch.nn.init.normal_(made.output.lora_b.weight)
        return made
    return llama3_2(**sizes, tie_word_embeddings=kind == "tied")
