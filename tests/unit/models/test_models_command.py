"""`train models`: the list, and one model looked at."""

import json
import shutil
from pathlib import Path

import pytest

from entrypoint.cli import run
from entrypoint.models.families import FAMILIES
from entrypoint.models.published import known


def test_the_list_has_every_family(capsys: pytest.CaptureFixture[str]):
    assert run(["models"]) == 0
    text = capsys.readouterr().out
    assert "meta-llama/Meta-Llama-3-8B" in text
    row = next(line for line in text.splitlines() if "meta-llama/Meta-Llama-3-8B " in line)
    assert row.split() == [
        "meta-llama/Meta-Llama-3-8B", "Llama", "8,030,261,248", "8,192", "tokenizer.json,",
        "128,256", "tokens",
    ]  # fmt: skip
    assert run(["models", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert {card["architecture"] for card in cards} == FAMILIES.keys()
    assert {card["tokenizer"] for card in cards} == {"tokenizer.json"}


def test_a_folder_that_is_called_as_a_published_model_is_what_is_planned_with(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name = "meta-llama/Meta-Llama-3-8B"
    found = known(name, {})
    assert found is not None
    assert found.parameters == 8_030_261_248
    shutil.copytree(tiny_model, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    found = known(name, {})
    assert found is not None
    assert found.folder == tmp_path / name
    assert found.parameters < 1_000_000


def test_one_model_is_described_for_people_and_programs(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(["models", str(tiny_model)]) == 0
    assert "torchtune.models.llama3_2.llama3_2" in capsys.readouterr().out
    assert run(["models", str(tiny_model), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert {
        "family", "builder", "model_type", "parameters", "shards", "tokenizer", "context"
    } <= card.keys()  # fmt: skip
    assert card["shards"] == ["model.safetensors"]
    assert card["tokenizer"] == "tokenizer.json"
    assert (card["dtype"], card["chat_template"]) == ("float32", "chat_template.jinja")


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\nlicense: mit\ntags: [a]\n---\n# M\n"}, "mit"),
        ({"README.md": "---\nlicense: other\nlicense_name: qwen\n---\n"}, "qwen"),
        ({"README.md": "# no head\n---\nlicense: x\n---\n", "LICENSE.txt": "x"}, "LICENSE.txt"),
        ({"README.md": "---\n: [\n---\n", "LICENSE": "x"}, "LICENSE"),
        ({}, None),
    ],
)
def test_the_licence_is_that_of_the_card_or_of_a_file(
    files: dict[str, str],
    licence: str | None,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    shutil.copy(tiny_model / "config.json", tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert run(["models", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == licence


def test_config_alone_is_enough(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(tiny_model / "config.json", tmp_path)
    assert run(["models", str(tmp_path), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["context"] == 512
    assert (card["shards"], card["tokenizer"]) == ([], None)


def test_the_embedded_model_need_not_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRAIN_CACHE", str(tmp_path))
    assert run(["models", "embedded", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 134_515_008
    assert list(tmp_path.iterdir()) == []


def test_the_number_format_is_that_of_the_weights(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({name: weight.half() for name, weight in weights.items()}, path)
    assert run(["models", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "float16"
    save_file({name: weight.char() for name, weight in weights.items()}, path)
    assert run(["models", str(folder)]) == 5
    assert "cannot be trained from" in capsys.readouterr().err


def test_5_a_link_instead_of_a_name(capsys: pytest.CaptureFixture[str]):
    assert run(["models", "https://huggingface.co/acme/tiny"]) == 5
    assert "by its name: acme/tiny" in capsys.readouterr().err


def test_5_nothing_there(capsys: pytest.CaptureFixture[str]):
    assert run(["models", "nowhere"]) == 5
    assert "no model folder nowhere" in capsys.readouterr().err
