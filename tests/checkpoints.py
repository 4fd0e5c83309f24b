"""Small random checkpoints, one for each kind of model that a card can describe."""

from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 20_000.0},
    "rms_norm_eps": 1e-5,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# the first context is longer than the sequences of the tests
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0 + 0.1 * step for step in range(8)],
    "long_factor": [2.0 + 0.5 * step for step in range(8)],
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("Llama", {"num_key_value_heads": 4}),
    "codellama": (
        "Llama",
        {
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        },
    ),
    "llama3": (
        "Llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    ),
    "llama3.2": ("Llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}),
    # and 3.3, which differs in nothing but its weights
    "llama3.1": ("Llama", {"rope_parameters": LLAMA3_ROPE | {"factor": 8.0}}),
    "smollm2": (
        "Llama",
        {
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
        },
    ),
    "mistral": ("Mistral", {"sliding_window": 32}),
    "gemma": ("Gemma", {"head_dim": 32, "num_key_value_heads": 1}),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 32,
            "sliding_window": 8,
            "query_pre_attn_scalar": 24,
            # low enough for both caps to bend what a random model computes
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 1.5,
            "attn_implementation": "eager",
        },
    ),
    "phi3": ("Phi3", {"num_key_value_heads": 4, "sliding_window": 40}),
    "phi3.5": (
        "Phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64},
    ),
    "phi4": ("Phi3", {}),
    "phi4-mini": (
        "Phi3",
        {
            "rope_parameters": LONGROPE
            | {"partial_rotary_factor": 0.75}
            | {key: LONGROPE[key][:6] for key in ("short_factor", "long_factor")},  # type: ignore[index]
            "original_max_position_embeddings": 64,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2": ("Qwen2", {}),
    "qwen2.5": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
}
"""Name -> transformers' class without its suffixes, and what differs from SMALL."""


def write_checkpoint(folder: Path, kind: str, **values: Any) -> Path:
    """Write a random model of that kind in fp32, its norms and biases random too.

    Args:
        values: what differs from the kind's config.
    """
    import torch
    import transformers

    name, differences = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL | differences | values)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # fresh norms are all one and biases all zero: swapped or lost, they would not show
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder
