"""entrypoint.models: cards, weight files and what is refused."""

import json
import os
import shutil
from pathlib import Path

import pytest

from entrypoint.errors import ModelError
from entrypoint.models.card import describe, read_config
from entrypoint.models.checkpoint import locate
from entrypoint.models.embedded.materialise import SHIPPED_CONFIG
from entrypoint.models.source import linked, load
from tests.checkpoints import LLAMA3_ROPE
from tests.tiny import write_tiny_model


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_card_states_what_config_and_files_say(model: Path):
    card = load(str(model), {})
    assert card.shards == ("model.safetensors",)
    assert card.context == 512
    assert card.arguments["num_kv_heads"] == 2
    assert card.lora_builder == "torchtune.models.llama3_2.lora_llama3_2"


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_as_torch_counts_them(tmp_path: Path, tied: bool):
    from transformers import AutoModelForCausalLM

    folder = write_tiny_model(tmp_path / "m", tied=tied)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert load(str(folder), {}).parameters == sum(p.numel() for p in loaded.parameters())


def test_shards_are_found_by_the_index(tmp_path: Path):
    folder = write_tiny_model(tmp_path / "m", shards=True)
    card = load(str(folder), {})
    assert len(card.shards) > 1
    (folder / card.shards[1]).unlink()
    with pytest.raises(ModelError, match=card.shards[1]):
        load(str(folder), {})


@pytest.mark.parametrize("text", ["[]", "{", '{"weight_map": []}'])
def test_an_index_of_weight_files_that_is_none(model: Path, text: str):
    (model / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match="index of the weight files cannot be read"):
        load(str(model), {})


def test_the_embedded_card_needs_no_weights(tmp_path: Path):
    card = load("embedded", {"TRAIN_CACHE": str(tmp_path)})
    assert card.parameters == 134_515_008
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_weight_file_is_named(model: Path):
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    for find in (lambda: load(str(model), {}), lambda: locate(str(model), {})):
        with pytest.raises(ModelError, match=r"cut short[\s\S]*model\.safetensors"):
            find()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(model: Path, name: str):
    (model / name).unlink()
    with pytest.raises(ModelError, match="has no"):
        load(str(model), {})


def test_weights_of_another_format_are_named(model: Path):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"as pytorch_model\.bin, not as[\s\S]*save_pretrained"):
        load(str(model), {})


def test_config_and_weights_must_agree(model: Path):
    change_config(model, intermediate_size=256)
    with pytest.raises(ModelError, match=r"another shape than config\.json says"):
        load(str(model), {})
    change_config(model, intermediate_size=128, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"layers\.2\.\S+ is missing \(and 8 more\)"):
        load(str(model), {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not supported"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope scaling of type yarn"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "type linear"),
        ({"rope_parameters": LLAMA3_ROPE | {"high_freq_factor": 8}}, "high_freq_factor 8"),
        (
            {"rope_parameters": LLAMA3_ROPE | {"original_max_position_embeddings": 4096}},
            "original_max_position_embeddings 4096",
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 9}}}, "RoPE by the type of layer"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantized weights \(awq\)"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor 0\.5"),
        ({"vocab_size": None}, "no vocab_size"),
        ({"vocab_size": "many"}, "cannot be understood"),
        ({"attention_bias": True}, "attention_bias"),
        ({"head_dim": 32}, "head_dim"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_what_the_builder_would_not_honour_is_refused(model: Path, values: dict, message: str):
    change_config(model, **values)
    with pytest.raises(ModelError, match=message):
        load(str(model), {})


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_is_no_json_object(model: Path, text: str):
    (model / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load(str(model), {})


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    for find in (load, locate):
        with pytest.raises(ModelError, match="nowhere"):
            find(str(tmp_path / "nowhere"), {})


def test_expected_tensors_are_the_public_models():
    card = describe("e", Path("f"), read_config(SHIPPED_CONFIG), ("s",))
    names = card.tensors
    assert len(names) == 2 + 9 * 30
    assert names["model.layers.29.self_attn.k_proj.weight"] == (192, 576)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://huggingface.co/acme/tiny", "acme/tiny"),
        ("https://hub.acme.com/acme/tiny/tree/main", "acme/tiny"),
        ("https://huggingface.co/acme/tiny/tree/v2?x=1", "acme/tiny@v2"),
        ("https://huggingface.co/datasets/acme/rows", None),
        ("acme/tiny", None),
    ],
)
def test_a_link_to_a_model_is_understood(link: str, expected: str | None):
    assert linked(link) == expected
