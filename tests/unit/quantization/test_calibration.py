"""entrypoint.quantization: a whole model rounded by rows, layer by layer."""

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from entrypoint.data.writing import RowFile
from entrypoint.errors import DataError, ModelError
from entrypoint.quantization import nf4
from entrypoint.quantization.calibration import Moment, Spread, Watch, decoder_layers
from entrypoint.quantization.folder import quantize
from entrypoint.quantization.samples import Calibration, token_ids
from entrypoint.schemes import QuantizationMethod, Scheme
from tests.recipes import few_rows
from tests.tiny import write_tiny_model
from tests.unit.factories import WORLD


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = Path(few_rows(tmp_path_factory.mktemp("samples") / "rows", train=24))
    file = RowFile(path=folder / "train.jsonl", rows=24, sha256="5" * 64, longest=400)
    return Calibration(reference="bookings", file=file, count=16)


@pytest.mark.parametrize("method", ["8da4w", "int4-weight-only", "nf4"])
def test_a_model_rounded_by_rows_answers_more_like_itself_than_one_rounded_to_nearest(
    tiny_model: Path, samples: Calibration, tmp_path: Path, method: QuantizationMethod
):
    scheme = Scheme(method=method)
    quantize(tiny_model, scheme, WORLD, tmp_path / "nearest")
    quantize(tiny_model, scheme, WORLD, tmp_path / "rows", samples)
    # rows that it was not rounded by
    rest = replace(samples, count=24)
    ids = [row for row in token_ids(tiny_model, rest) if row not in token_ids(tiny_model, samples)]
    assert len(ids) == 8
    plain = logits(tiny_model, ids)
    by_rows, to_nearest = (
        (logits(tmp_path / name, ids) - plain).norm() for name in ("rows", "nearest")
    )
    assert by_rows < 0.8 * to_nearest


def test_activations_with_large_columns_lose_less_when_these_are_moved_into_the_weights(
    tiny_model: Path, samples: Calibration, tmp_path: Path
):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.data[:2] *= 50
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    scheme, world = Scheme(method="int8-dynamic"), replace(WORLD, dtype="fp32")
    quantize(tmp_path / "model", scheme, world, tmp_path / "nearest")
    quantize(tmp_path / "model", scheme, world, tmp_path / "rows", samples)
    ids = token_ids(tiny_model, replace(samples, count=24))
    plain, by_rows, to_nearest = (
        logits(tmp_path / name, ids) for name in ("model", "rows", "nearest")
    )
    assert (by_rows - plain).norm() < 0.5 * (to_nearest - plain).norm()


def logits(folder: Path, ids: list[list[int]]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return torch.cat([model(torch.tensor([row])).logits[0] for row in ids])


def test_the_copy_says_what_was_done(tiny_model: Path, samples: Calibration, tmp_path: Path):
    quantize(tiny_model, Scheme(group_size=64), WORLD, tmp_path / "rows", samples)
    said = json.loads((tmp_path / "rows" / "quantization.json").read_text())
    assert set(said) == {
        "version", "method", "group_size", "left_alone", "rounding", "torchtune", "calibration"
    }  # fmt: skip
    assert (said["method"], said["group_size"], said["rounding"]) == ("8da4w", 64, "gptq")
    assert said["left_alone"] == ["lm_head"]
    assert said["calibration"]["data"] == "bookings"
    assert (said["calibration"]["rows"], said["calibration"]["sha256"]) == (16, "5" * 64)
    assert said["calibration"]["tokens"] == sum(map(len, token_ids(tiny_model, samples)))
    scheme = Scheme(method="int8-dynamic")
    for name, rows, rounding in (("int8", None, "nearest"), ("rows8", samples, "smoothquant")):
        quantize(tiny_model, scheme, WORLD, tmp_path / name, rows)
        said = json.loads((tmp_path / name / "quantization.json").read_text())
        assert (said["group_size"], said["rounding"]) == (None, rounding)
        assert (said["calibration"] is None) == (rows is None)


def test_layers_that_are_named_stay_as_they_are(samples: Calibration, tmp_path: Path):
    model = write_tiny_model(tmp_path / "model", tied=False, shards=True)
    scheme = Scheme(skip=("lm_head", "model.layers.0.mlp.*", "*.1.self_attn.k_proj"))
    quantize(model, scheme, WORLD, tmp_path / "out", samples)
    before, after = (
        dict(AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).named_parameters())
        for one in (model, tmp_path / "out")
    )
    same = {name for name in before if type(after[name]) is torch.nn.Parameter}
    assert {name.removesuffix(".weight") for name in same if "norm" not in name} == {
        "model.embed_tokens", "lm_head", "model.layers.1.self_attn.k_proj",
        *(f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down")),
    }  # fmt: skip
    assert all(torch.equal(before[name], after[name]) for name in same)


def test_layers_that_read_the_same_input_share_what_is_known_of_it():
    watch = Watch(keep=lambda: Moment(3))
    valid = torch.tensor([[True, True, False], [True, False, False]])
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    watch.begin(valid)
    for name, inputs in (("q", first), ("k", first), ("o", second)):
        watch.add(name, inputs)
    assert watch.leader == {"q": "q", "k": "q", "o": "o"}
    assert set(watch.seen) == {"q", "o"}
    counted, seen = first[valid], watch.seen["q"]
    assert isinstance(seen, Moment)
    assert seen.total is not None
    assert torch.allclose(seen.total, counted.T @ counted, atol=1e-6)
    assert seen.tokens == 3


def test_a_sample_has_tokens_from_all_over_and_the_largest_of_all():
    tokens = torch.randn(1600, 4)
    spread = Spread(len(tokens))
    for part in tokens.split(7):
        spread.add(part)
    sample = spread.known()
    assert torch.equal(sample.tokens, tokens[::3])
    assert torch.equal(sample.largest, tokens.abs().amax(0))


def test_samples_come_from_all_over_the_file_and_are_cut(tiny_model: Path, tmp_path: Path):
    path = tmp_path / "train.jsonl"
    rows = [{"text": f"row {index} " + "word " * 600} for index in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = RowFile(path=path, rows=10, sha256="0" * 64, longest=4000)
    found = token_ids(tiny_model, Calibration(reference="r", file=file, count=5))
    whole = token_ids(tiny_model, Calibration(reference="r", file=file, count=50))
    assert [len(row) for row in found] == [512] * 5
    assert found == whole[::2]


def test_both_answers_of_a_pair_are_samples(tiny_model: Path, tmp_path: Path):
    def turn(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": text}

    path = tmp_path / "train.jsonl"
    row = {
        "prompt": [turn("user", "Hello")], "chosen": [turn("assistant", "Hi")],
        "rejected": [turn("assistant", "Go away")],
    }  # fmt: skip
    path.write_text(json.dumps(row) + "\n")
    file = RowFile(path=path, rows=1, sha256="0" * 64, longest=40)
    found = token_ids(tiny_model, Calibration(reference="r", file=file))
    assert len(found) == 2
    assert found[0] != found[1]


def test_rows_that_cannot_be_written_for_the_model_are_refused(
    tiny_model: Path, samples: Calibration, tmp_path: Path
):
    import shutil

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    template = folder / "chat_template.jinja"
    template.write_text("{{ raise_exception('no such role') }}")
    with pytest.raises(DataError, match="refuses a row: no such role"):
        token_ids(folder, samples)
    template.unlink()
    with pytest.raises(ModelError, match="no chat template"):
        token_ids(folder, samples)


def test_a_model_without_a_list_of_layers_is_refused_with_the_way_out():
    class Flat(torch.nn.Module):
        class config:  # noqa: N801
            @staticmethod
            def get_text_config() -> Any:
                return type("Config", (), {"num_hidden_layers": 3})

        def get_decoder(self) -> torch.nn.Module:
            return self

    with pytest.raises(ModelError, match="no list of its 3 layers") as caught:
        decoder_layers(Flat())
    assert "--calibration-rows 0" in str(caught.value.hint)


def test_layers_whose_place_a_packed_one_takes_do_not_stay_in_memory(
    tiny_model: Path, samples: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    replaced: list[tuple[str, weakref.ref[Any]]] = []
    there: set[str] = set()
    stock = nf4.put

    def put(model: Any, name: str, weight: Any) -> None:
        replaced.append((name, weakref.ref(model.get_submodule(name))))
        stock(model, name, weight)
        gc.collect()
        if name.startswith("model.layers.1."):
            there.update(before for before, layer in replaced if layer() is not None)

    monkeypatch.setattr(nf4, "put", put)
    quantize(tiny_model, Scheme(method="nf4"), WORLD, tmp_path / "rows", samples)
    assert len(replaced) == 14
    assert not {name for name in there if name.startswith("model.layers.0.")}
