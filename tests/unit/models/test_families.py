"""entrypoint.models.families: published models, by the facts of their public config.json."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from entrypoint.errors import ModelError
from entrypoint.models.card import Model, describe
from entrypoint.models.families import FAMILIES
from entrypoint.models.published import FACTS, published
from entrypoint.tune import compat
from tests.checkpoints import LONGROPE, SMALL

KNOWN = json.loads(Path(__file__).with_name("public_models.json").read_text("utf-8"))
"""Hub id -> what the publisher says; entrypoint.models.published must come to the same."""
CONFIGS = json.loads(FACTS.read_text("utf-8"))
LORA = {"lora_attn_modules": ["q_proj", "v_proj"], "lora_rank": 8, "lora_alpha": 16}


def card(config: dict[str, Any]) -> Model:
    return describe("m", Path("m"), config, ("model.safetensors",))


def small(architecture: str, **values: Any) -> dict[str, Any]:
    return {**SMALL, "architectures": [architecture], **values}


def test_published_sizes_have_their_known_numbers():
    found = {
        name: {"parameters": model.parameters, "context": model.context}
        for name, model in published().items()
    }
    assert found == KNOWN


def test_every_family_has_a_published_size():
    assert {model.architecture for model in published().values()} == set(FAMILIES)


@pytest.mark.parametrize("name", KNOWN)
def test_builders_make_the_weights_that_the_config_implies(name: str):
    """On the meta device: the card's names and shapes are those of transformers, and converted by
    torchtune those of both builders."""
    import transformers

    kind = CONFIGS[name]["architectures"][0].removesuffix("ForCausalLM")
    config = getattr(transformers, f"{kind}Config").from_dict(dict(CONFIGS[name]))
    model = card(CONFIGS[name])
    with torch.device("meta"):
        theirs = getattr(transformers, f"{kind}ForCausalLM")._from_config(config)
        assert shapes_of(theirs) == model.tensors
        expected = converted(model, CONFIGS[name])
        assert shapes_of(built(model.builder, model.arguments)) == expected
        assert shapes_of(built(model.lora_builder, {**model.arguments, **LORA})) == expected


def built(builder: str, arguments: Any) -> torch.nn.Module:
    compat.apply()
    from omegaconf import OmegaConf
    from torchtune.config import instantiate

    # a short table is enough: rotary embeddings are no weights
    return instantiate(OmegaConf.create({"_component_": builder, **arguments, "max_seq_len": 16}))


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if ".lora_" not in name
    }


def converted(model: Model, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    from torchtune.models.convert_weights import hf_to_tune
    from torchtune.models.gemma2._convert_weights import gemma2_hf_to_tune
    from torchtune.models.phi3._convert_weights import phi3_hf_to_tune
    from torchtune.models.qwen2._convert_weights import qwen2_hf_to_tune

    weights = {name: torch.empty(shape) for name, shape in model.tensors.items()}
    sizes = {
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config["num_key_value_heads"],
        "dim": config["hidden_size"],
    }
    if model.model_type == "PHI3_MINI":
        found = phi3_hf_to_tune(weights, **sizes)
    else:
        convert = {"GEMMA2": gemma2_hf_to_tune, "QWEN2": qwen2_hf_to_tune}
        found = convert.get(model.model_type, hf_to_tune)(
            weights, **sizes, head_dim=config.get("head_dim")
        )
    return {name: tuple(weight.shape) for name, weight in found.items()}


@pytest.mark.parametrize(
    ("architecture", "values", "message"),
    [
        ("MistralForCausalLM", {"head_dim": 32}, "head_dim 32 unlike hidden_size / heads"),
        ("MistralForCausalLM", {"tie_word_embeddings": True}, "tie_word_embeddings"),
        ("GemmaForCausalLM", {"head_dim": 16, "hidden_activation": "relu"}, "hidden_act relu"),
        ("GemmaForCausalLM", {}, "no head_dim"),
        ("GemmaForCausalLM", {"head_dim": 16, "tie_word_embeddings": False}, "output head apart"),
        (
            "GemmaForCausalLM",
            {"head_dim": 16, "use_bidirectional_attention": True},
            "use_bidirectional_attention",
        ),
        ("Gemma2ForCausalLM", {"layer_types": ["full_attention"] * 3}, "do not alternate"),
        ("Gemma2ForCausalLM", {"head_dim": 16}, "no query_pre_attn_scalar"),
        ("Phi3ForCausalLM", {"resid_pdrop": 0.1}, "resid_pdrop"),
        ("Phi3ForCausalLM", {"rope_scaling": {"type": "yarn"}}, "type yarn"),
        ("Qwen2ForCausalLM", {"rope_scaling": {"type": "yarn", "factor": 4}}, "type yarn"),
        ("Qwen3ForCausalLM", {"attention_bias": True}, "attention_bias"),
        ("Qwen3MoeForCausalLM", {}, "Qwen3MoeForCausalLM is not supported"),
    ],
)
def test_what_a_family_does_not_honour_is_refused_by_name(
    architecture: str, values: dict, message: str
):
    config = small(architecture, **values)
    if "rope_scaling" in values:
        del config["rope_parameters"]
    with pytest.raises(ModelError, match=message):
        card(config)


@pytest.mark.parametrize(
    ("architecture", "values", "context", "bound"),
    [
        ("MistralForCausalLM", {"sliding_window": 32}, 32, "sliding_window"),
        ("MistralForCausalLM", {"max_position_embeddings": 8192}, 4096, "sliding_window"),
        ("MistralForCausalLM", {"sliding_window": None}, 128, "max_position_embeddings"),
        ("Phi3ForCausalLM", {"sliding_window": 32}, 32, "sliding_window"),
        ("Qwen2ForCausalLM", {"sliding_window": 32}, 128, "max_position_embeddings"),
        (
            "Qwen2ForCausalLM",
            {"sliding_window": 32, "use_sliding_window": True},
            32,
            "sliding_window",
        ),
        (
            "Phi3ForCausalLM",
            {"rope_parameters": LONGROPE},
            64,
            "original_max_position_embeddings",
        ),
    ],
)
def test_what_a_builder_lacks_bounds_the_context(
    architecture: str, values: dict, context: int, bound: str
):
    model = card(small(architecture, **values))
    assert (model.context, model.context_bound) == (context, bound)


def test_dropout_of_the_attention_is_honoured():
    model = card(small("LlamaForCausalLM", attention_dropout=0.1))
    assert model.arguments["attn_dropout"] == 0.1
    assert "attn_dropout" not in card(small("LlamaForCausalLM")).arguments
