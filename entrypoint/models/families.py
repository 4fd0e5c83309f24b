"""Model families: from config.json to torchtune's builder, its arguments and the weights' shapes.

One pure function for each family, found by the architecture that config.json names. What a builder
would not compute as transformers does is refused by name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from entrypoint.errors import ModelError
from entrypoint.models.facts import Arguments, Config, Facts, whole
from entrypoint.models.tensors import FOUR_NORMS, Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What a family's function makes of one config.json."""

    name: str
    """As people call it."""
    model_type: str
    builder: str
    arguments: Arguments
    tensors: dict[str, Shape]
    context: int
    bound: str = "max_position_embeddings"
    """What of config.json limits the context."""


def llama(config: Config) -> Family:
    """Llama 2 to 3.3, Code Llama, SmolLM2. torchtune's builder of 3.2 covers them all: it alone
    takes both a RoPE scale and tied embeddings, and lora_llama2 takes no rope_base."""
    facts = Facts(config)
    facts.refuse(ropes=("default", "llama3"))
    tied = facts.get("tie_word_embeddings", False)
    return Family(
        name="Llama",
        model_type="LLAMA3_2",
        builder="torchtune.models.llama3_2.llama3_2",
        arguments={
            **facts.arguments(),
            "scale_factor": _llama3_scale(facts) if facts.rope_type == "llama3" else 1,
            "tie_word_embeddings": tied,
        },
        tensors=facts.tensors(tied=tied),
        **facts.within(None),
    )


def _llama3_scale(facts: Facts) -> float:
    """Factor of Llama 3.1's scaled RoPE; its other numbers are fixed in torchtune."""
    fixed = {
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "original_max_position_embeddings": 8192,
    }
    for key, value in fixed.items():
        if facts.rope.get(key) != value:
            raise ModelError(
                f"the model's RoPE scaling has {key} {facts.rope.get(key)}; "
                f"only {value} is supported"
            )
    return whole(facts.rope["factor"])


def mistral(config: Config) -> Family:
    """Mistral 7B and what shares its architecture."""
    facts = Facts(config)
    facts.refuse(others={"tie_word_embeddings": facts.get("tie_word_embeddings", False)})
    return Family(
        name="Mistral",
        model_type="MISTRAL",
        builder="torchtune.models.mistral.mistral",
        arguments=facts.arguments(),
        tensors=facts.tensors(tied=False),
        # transformers takes 4096 when the key is missing, and no window when it is null
        **facts.within(config.get("sliding_window", 4096)),
    )


def gemma(config: Config) -> Family:
    """Gemma 1. Its early files say `gelu` and mean the tanh approximation; transformers knows."""
    facts = Facts(config)
    named = facts.get("hidden_activation") or facts.get("hidden_act", "gelu")
    act = "gelu_pytorch_tanh" if named == "gelu" else named
    Facts({**config, "hidden_act": act}).refuse(
        activation="gelu_pytorch_tanh",
        own_head_dim=True,
        others={
            "an output head apart from the embedding": not facts.get("tie_word_embeddings", True)
        },
    )
    return Family(
        name="Gemma",
        model_type="GEMMA",
        builder="torchtune.models.gemma.gemma",
        arguments={**facts.arguments(), "head_dim": facts["head_dim"]},
        tensors=facts.tensors(tied=True),
        **facts.within(None),
    )


def gemma2(config: Config) -> Family:
    """Gemma 2, with the builder of ours that caps logits and not hidden states."""
    facts = Facts(config)
    layers = facts["num_hidden_layers"]
    alternating = [("sliding", "full")[index % 2] + "_attention" for index in range(layers)]
    facts.refuse(
        activation="gelu_pytorch_tanh",
        key="hidden_activation",
        own_head_dim=True,
        others={
            "an output head apart from the embedding": not facts.get("tie_word_embeddings", True),
            "layer_types that do not alternate": facts.get("layer_types", alternating)
            != alternating,
        },
    )
    return Family(
        name="Gemma 2",
        model_type="GEMMA2",
        builder="entrypoint.tune.gemma2.gemma2",
        arguments={
            **facts.arguments(),
            "head_dim": facts["head_dim"],
            "query_pre_attn_scalar": facts["query_pre_attn_scalar"],
            "sliding_window_size": facts["sliding_window"],
            "hidden_capping_value": config.get("attn_logit_softcapping", 50.0),
            "final_capping_value": config.get("final_logit_softcapping", 30.0),
        },
        tensors=facts.tensors(tied=True, norms=FOUR_NORMS),
        **facts.within(None),
    )


def phi3(config: Config) -> Family:
    """Phi-3, 3.5, 4 and 4-mini. Long context (longrope) is right up to the length the model was
    first trained with: beyond it transformers changes to other factors."""
    facts = Facts(config)
    facts.refuse(
        ropes=("default", "longrope", "su"),
        others={name: facts.get(name, 0) != 0 for name in ("resid_pdrop", "embd_pdrop")},
    )
    tied = facts.get("tie_word_embeddings", False)
    longrope = _longrope(facts) if facts.rope_type != "default" else {}
    rotary_dim = int(facts.head_dim * facts.partial_rotary)
    plain = not (tied or longrope or rotary_dim != facts.head_dim)
    ours = {"rotary_dim": rotary_dim, "tie_word_embeddings": tied, **longrope}
    room = facts.within(facts.get("sliding_window"))
    if longrope and _first_context(facts) < room["context"]:
        room = {"context": _first_context(facts), "bound": "original_max_position_embeddings"}
    return Family(
        name="Phi",
        model_type="PHI3_MINI",
        builder="torchtune.models.phi3.phi3" if plain else "entrypoint.tune.phi3.phi3",
        arguments={**facts.arguments(eps=1e-5), **({} if plain else ours)},
        tensors=facts.tensors(tied=tied, fused=True),
        **room,
    )


def _first_context(facts: Facts) -> int:
    """Context of a longrope model's first training, in tokens."""
    key = "original_max_position_embeddings"
    return int(facts.rope.get(key) or facts[key])


def _longrope(facts: Facts) -> Arguments:
    """Arguments of LongRoPE within the first context; as transformers computes them."""
    original = _first_context(facts)
    factor = facts.rope.get("factor") or facts["max_position_embeddings"] / original
    derived = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    if "short_factor" not in facts.rope:
        raise ModelError("config.json has longrope without short_factor")
    return {
        "short_factor": list(facts.rope["short_factor"]),
        "attention_factor": facts.rope.get("attention_factor") or derived,
    }


def qwen2(config: Config) -> Family:
    """Qwen2, Qwen2.5."""
    facts = Facts(config)
    facts.refuse()
    tied = facts.get("tie_word_embeddings", False)
    return Family(
        name="Qwen2",
        model_type="QWEN2",
        builder="torchtune.models.qwen2.qwen2",
        arguments={**facts.arguments(), "tie_word_embeddings": tied},
        tensors=facts.tensors(tied=tied, qkv_bias=True),
        **facts.within(_qwen_window(facts)),
    )


def qwen3(config: Config) -> Family:
    """Qwen3, dense; the builder is ours, from torchtune's modules."""
    facts = Facts(config)
    facts.refuse(own_head_dim=True)
    tied = facts.get("tie_word_embeddings", False)
    return Family(
        name="Qwen3",
        # neither conversion permutes anything, and tune.mend adds the norms' names
        model_type="QWEN2",
        builder="entrypoint.tune.qwen3.qwen3",
        arguments={
            **facts.arguments(),
            "head_dim": facts["head_dim"],
            "tie_word_embeddings": tied,
        },
        tensors=facts.tensors(tied=tied, head_norms=True),
        **facts.within(_qwen_window(facts)),
    )


def _qwen_window(facts: Facts) -> int | None:
    return facts.get("sliding_window", 4096) if facts.get("use_sliding_window", False) else None


FAMILIES: dict[str, Callable[[Config], Family]] = {
    "LlamaForCausalLM": llama,
    "MistralForCausalLM": mistral,
    "GemmaForCausalLM": gemma,
    "Gemma2ForCausalLM": gemma2,
    "Phi3ForCausalLM": phi3,
    "Qwen2ForCausalLM": qwen2,
    "Qwen3ForCausalLM": qwen3,
}
"""Architecture, as config.json names it -> the function that reads the config."""
