"""A model's facts, from config.json and the headers of its weight files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from entrypoint.errors import ModelError

Shape = tuple[int, ...]

BYTES_PER_ELEMENT = {"fp32": 4, "bf16": 2}
TORCH_DTYPE = {"fp32": "float32", "bf16": "bfloat16"}
"""torch's and transformers' names of the number formats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Everything that a recipe needs to know of a model."""

    reference: str
    folder: Path
    architecture: str
    model_type: str
    """torchtune's name for the conversion between its weights and Hugging Face's."""
    builder: str
    """Import path of torchtune's builder; its LoRA variant has `lora_` before the name."""
    arguments: Mapping[str, int | float | bool]
    """The builder's keyword arguments but max_seq_len."""
    shards: tuple[str, ...]
    parameters: int
    """Tied weights counted once."""
    context: int
    """Longest sequence, in tokens."""

    @property
    def lora_builder(self) -> str:
        module, name = self.builder.rsplit(".", 1)
        return f"{module}.lora_{name}"


def read_config(path: Path) -> dict[str, Any]:
    """A model's JSON file, config.json or tokenizer_config.json, as a dict.

    Raises:
        ModelError: it is missing or not JSON.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"the model folder has no {path.name}",
            where=path.parent,
            hint="give a folder in Hugging Face format: config.json, weights, tokenizer.json",
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}", where=path) from error
    if not isinstance(config, dict):
        raise ModelError(f"{path.name} is not a JSON object", where=path)
    return config


def is_quantized(folder: Path) -> bool:
    """Whether config.json describes a quantization."""
    return "quantization_config" in read_config(folder / "config.json")


def describe(
    reference: str, folder: Path, config: Mapping[str, Any], shards: tuple[str, ...]
) -> Model:
    """The card of a Llama-architecture model.

    Raises:
        ModelError: config.json describes something that torchtune's builder would not honour.
    """
    where = folder / "config.json"
    architectures = config.get("architectures") or ["none"]
    if architectures[0] != "LlamaForCausalLM":
        raise ModelError(
            f"the architecture {architectures[0]} is not supported; LlamaForCausalLM is",
            where=where,
            hint="the README lists what is supported by now",
        )
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    unsupported = {
        "rope scaling": rope.get("rope_type", rope.get("type", "default")) != "default",
        "attention_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
        "head_dim unlike hidden_size / heads": config.get("head_dim")
        not in (None, hidden // heads),
        "hidden_act unlike silu": config.get("hidden_act", "silu") != "silu",
    }
    for feature, present in unsupported.items():
        if present:
            raise ModelError(f"the model uses {feature}, which is not supported", where=where)
    arguments = {
        "vocab_size": config["vocab_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": config.get("num_key_value_heads", heads),
        "embed_dim": hidden,
        "intermediate_dim": config["intermediate_size"],
        "rope_base": int(rope.get("rope_theta", config.get("rope_theta", 10_000))),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        # 1 turns Llama 3.2's scaled rotary embedding into the plain one of config.json
        "scale_factor": 1,
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
    }
    return Model(
        reference=reference,
        folder=folder,
        architecture=architectures[0],
        model_type="LLAMA3_2",
        builder="torchtune.models.llama3_2.llama3_2",
        arguments=arguments,
        shards=shards,
        parameters=sum(prod(shape) for shape in expected_tensors(arguments).values()),
        context=config["max_position_embeddings"],
    )


def expected_tensors(arguments: Mapping[str, Any]) -> dict[str, Shape]:
    """Name -> shape of every weight in Hugging Face's naming."""
    hidden, inner = arguments["embed_dim"], arguments["intermediate_dim"]
    keys = hidden // arguments["num_heads"] * arguments["num_kv_heads"]
    tensors: dict[str, Shape] = {
        "model.embed_tokens.weight": (arguments["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not arguments["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (arguments["vocab_size"], hidden)
    layer: dict[str, Shape] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    for index in range(arguments["num_layers"]):
        tensors |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    return tensors
