"""entrypoint.export.gguf_file and vocabulary: loaded back by transformers."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from entrypoint.errors import ModelError
from entrypoint.export import gguf_file, vocabulary
from entrypoint.models.card import read_config
from tests.checkpoints import write_checkpoint
from tests.tiny import write_tokenizer


def export(folder: Path, path: Path, kind: str = "f16") -> gguf.GGUFReader:
    config = read_config(folder / "config.json")
    words = vocabulary.read(folder, config["vocab_size"])
    gguf_file.write(folder, path, config, words, kind, name="m", licence="mit")  # type: ignore[arg-type]
    return gguf.GGUFReader(path)


def logits(folder: Path, **arguments: object):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **arguments)
    return model(torch.arange(2, 34)[None]).logits.detach()


@pytest.mark.parametrize("kind", ["llama3", "smollm2", "mistral", "qwen2", "qwen2.5", "qwen3-tied"])
def test_transformers_computes_the_same_from_the_file(kind: str, tmp_path: Path):
    # transformers reads no head_dim of Qwen3 from GGUF, and takes its default
    sizes = {"head_dim": 128} if kind.startswith("qwen3") else {}
    folder = write_checkpoint(tmp_path / "model", kind, vocab_size=512, **sizes)
    write_tokenizer(folder)
    export(folder, tmp_path / "m.gguf")
    from transformers import GgufConfig

    expected = logits(folder)
    found = logits(tmp_path, gguf_file="m.gguf", quantization_config=GgufConfig(dequantize=True))
    # fp16 has 10 bits after the first: about 1e-3
    assert (found - expected).norm() / expected.norm() < 2e-3


@pytest.mark.parametrize(
    ("kind", "stored", "worst"),
    [("q8_0", "Q8_0", 0.02), ("q4_0", "Q4_0", 0.2), ("q4_1", "Q4_1", 0.2)],
)
def test_blocks_of_integers_are_near_the_weights(
    kind: str, stored: str, worst: float, tiny_model: Path, tmp_path: Path
):
    whole = {one.name: one for one in export(tiny_model, tmp_path / "f16.gguf").tensors}
    reader = export(tiny_model, tmp_path / "m.gguf", kind)
    types = {one.name: one.tensor_type.name for one in reader.tensors}
    assert types["blk.0.ffn_down.weight"] == stored
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"
    for one in reader.tensors:
        expected = np.asarray(whole[one.name].data, dtype=np.float32)
        found = gguf.dequantize(one.data, one.tensor_type).reshape(expected.shape)
        assert np.linalg.norm(found - expected) <= worst * np.linalg.norm(expected)


def test_tokenizer_and_chat_template_are_inside(tiny_model: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    fields = export(tiny_model, tmp_path / "m.gguf").fields
    expected = AutoTokenizer.from_pretrained(tiny_model)
    assert fields["tokenizer.chat_template"].contents() == expected.chat_template
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.eos_token_id"].contents() == expected.eos_token_id
    assert fields["general.license"].contents() == "mit"
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert kinds[expected.convert_tokens_to_ids("<|im_start|>")] == vocabulary.CONTROL
    found = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    text = "<|im_start|>user\nBook 12 rooms in Oslo, déjà vu!<|im_end|>\n"
    assert found(text).input_ids == expected(text).input_ids


def test_an_embedding_with_more_rows_than_tokens_is_filled_up(tiny_model: Path):
    words = vocabulary.read(tiny_model, 515)
    assert words.tokens[512:] == ("[PAD512]", "[PAD513]", "[PAD514]")
    assert words.kinds[512:] == (vocabulary.UNUSED,) * 3
    with pytest.raises(ModelError, match="room for 500"):
        vocabulary.read(tiny_model, 500)


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "phi3"])
def test_other_families_are_refused_by_name(kind: str):
    name = {"gemma": "Gemma", "gemma2": "Gemma2", "phi3": "Phi3"}[kind]
    with pytest.raises(ModelError, match=f"{name}ForCausalLM has no GGUF export"):
        gguf_file.check({"architectures": [f"{name}ForCausalLM"]}, "m")


def test_scaled_positions_that_have_no_place_are_refused():
    config = {"architectures": ["Qwen2ForCausalLM"], "rope_scaling": {"type": "yarn", "factor": 4}}
    with pytest.raises(ModelError, match="scaled by yarn"):
        gguf_file.check(config, "m")


def test_llama_3_factors_are_those_of_transformers(tmp_path: Path):
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {
        "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(hidden_size=256, num_attention_heads=2, rope_parameters=scaling)
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500_000.0 ** -(torch.arange(0, 128, 2) / 128)
    found = gguf_file.rope(config.to_dict(), "m")
    torch.testing.assert_close(plain / torch.tensor(found.factors), expected)


def test_llama_3_factors_are_a_tensor_of_the_file(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "model", "llama3.2", vocab_size=512)
    write_tokenizer(folder)
    tensors = {one.name: one for one in export(folder, tmp_path / "m.gguf").tensors}
    assert tensors["rope_freqs.weight"].data.shape == (8,)
    assert "output.weight" not in tensors


def tokenizer_with(folder: Path, tiny_model: Path, **changes: object) -> Path:
    shutil.copytree(tiny_model, folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (
            (
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?"
                r"[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            "llama-bpe",
        ),
        (
            (
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+"
                r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            "qwen2",
        ),
    ],
)
def test_the_way_text_is_split_has_llama_cpps_name(
    pattern: str, name: str, tiny_model: Path, tmp_path: Path
):
    steps = [SPLIT | {"pattern": {"Regex": pattern}}, BYTES]
    split = {"type": "Sequence", "pretokenizers": steps}
    folder = tokenizer_with(tmp_path / "m", tiny_model, pre_tokenizer=split)
    assert vocabulary.read(folder, 512).splitter == name


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}, "SentencePiece"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [SPLIT | {"pattern": {"Regex": r"\w+"}}, BYTES],
            },
            "no known name",
        ),
    ],
)
def test_other_ways_to_split_text_are_refused(
    split: dict, says: str, tiny_model: Path, tmp_path: Path
):
    folder = tokenizer_with(tmp_path / "m", tiny_model, pre_tokenizer=split)
    with pytest.raises(ModelError, match=says):
        vocabulary.read(folder, 512)
