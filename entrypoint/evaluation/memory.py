"""How much an evaluation may hold, and what it has held."""

from typing import Any

import torch

from entrypoint import hardware
from entrypoint.evaluation.batches import Limits

CPU_ROWS, GPU_ROWS = 64, 512
CPU_TOKENS, GPU_TOKENS = 4096, 65_536
"""Beyond these a batch is no faster."""
SHARE = 0.4
"""Of free memory that a batch may take: the estimate below is coarse, and others run beside us."""


def limits_of(model: Any, *, rows: int | None, processes: int, new_tokens: int) -> Limits:
    """What a batch of this model may take.

    Args:
        rows: as many as the user wants; None finds out.
        new_tokens: that each row will grow by, with keys and values of every token kept.
    """
    config = model.config.get_text_config()
    element = 4 if model.dtype == torch.float32 else 2
    hidden = config.hidden_size
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    # a layer's activations at their widest; keys and values of all layers
    activations = element * (
        8 * hidden + 3 * (getattr(config, "intermediate_size", 0) or 4 * hidden)
    )
    keys = 2 * element * config.num_hidden_layers * heads * head
    on_cpu = model.device.type == "cpu"
    room = int(free_bytes(model.device) * SHARE / (processes if on_cpu else 1))
    return Limits(
        rows=rows or (CPU_ROWS if on_cpu else GPU_ROWS),
        tokens=None if rows or new_tokens else CPU_TOKENS if on_cpu else GPU_TOKENS,
        room=None if rows else room,
        token_bytes=activations + keys,
        new_tokens=new_tokens,
        # logits, and their log-probabilities in fp32
        logit_bytes=config.vocab_size * (element + 8),
    )


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device; on a CPU, within the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return hardware.read_memory()[1]


def peak_bytes(device: torch.device) -> int:
    """The most memory this process has held: of the device, or of the machine for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return hardware.peak_memory()
