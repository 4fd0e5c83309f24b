"""`train export` and `train chat`: what they write is loaded and asked."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from entrypoint.cli import run
from entrypoint.errors import ExitCode
from tests.e2e.conftest import Launcher
from tests.hub_server import HubServer

pytestmark = pytest.mark.e2e

TOKEN = "hf_canary_51d0aa"
QUESTIONS = [f"Book {city} for {number}." for number, city in enumerate(["Oslo", "Rome"] * 10)]


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it: an adapter, and the model that it is merged into."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = tmp_path_factory.mktemp("runs") / "my-run"
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    )
    model.save_pretrained(root / "adapter")
    (root / "adapter" / "README.md").unlink()
    model.merge_and_unload().save_pretrained(root / "final")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(root / "final")
    manifest = {
        "settings": {"objective": "sft", "method": "lora"},
        "model": {
            "reference": str(tiny_model), "folder": str(tiny_model), "parameters": 150_000,
        },
        "data": {
            "reference": "embedded", "train": {"rows": 9, "sha256": "ab"}, "evaluation": None,
        },
        "versions": {"tunecask": "0.1.0"},
    }  # fmt: skip
    (root / "manifest.json").write_text(json.dumps(manifest))
    (root / "result.json").write_text(json.dumps({"loss": {"first": 2.0, "last": 1.0}}))
    return root


def answers(
    folder: Path,
    questions: Sequence[str] = QUESTIONS,
    tokens: int = 6,
    opening: Sequence[dict[str, str]] = (),
    **arguments: Any,
) -> list[list[int]]:
    """Greedy, in fp32, all questions in one batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = {"gguf_file": arguments["gguf_file"]} if "gguf_file" in arguments else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", **names)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **arguments)
    inputs = tokenizer.apply_chat_template(
        [[*opening, {"role": "user", "content": question}] for question in questions],
        add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    output: list[list[int]] = model.generate(
        **inputs, max_new_tokens=tokens, do_sample=False
    ).tolist()
    return output


def logits(folder: Path, **arguments: Any) -> Any:
    """What the model makes of a text, [tokens, vocabulary]."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **arguments)
    with torch.no_grad():
        return model(torch.arange(2, 200)[None]).logits[0]


def from_gguf(folder: Path) -> dict[str, Any]:
    from transformers import GgufConfig

    (file,) = folder.glob("*.gguf")
    return {"gguf_file": file.name, "quantization_config": GgufConfig(dequantize=True)}


def test_a_run_is_exported_as_folder_adapter_and_gguf_that_answer_alike(finished: Path):
    from peft import AutoPeftModelForCausalLM

    expected = answers(finished / "final")
    for kind in ("hf", "peft", "gguf"):
        assert run(["export", "--model", str(finished), "--to", kind]) == 0
    exports = finished / "export"
    assert sorted(path.name for path in exports.iterdir()) == ["gguf-f16", "hf", "peft"]
    assert answers(exports / "hf") == expected
    assert answers(exports / "gguf-f16", **from_gguf(exports / "gguf-f16")) == expected
    assert sorted(path.name for path in (exports / "peft").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    adapted = AutoPeftModelForCausalLM.from_pretrained(exports / "peft")
    adapted.merge_and_unload().save_pretrained(finished / "again")
    shutil.copyfile(finished / "final" / "tokenizer.json", finished / "again" / "tokenizer.json")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(finished / "final" / name, finished / "again" / name)
    assert answers(finished / "again") == expected
    card = (exports / "hf" / "README.md").read_text()
    assert "| training loss, last step | 1.000 |" in card
    assert str(finished.parent) not in card
    assert run(["export", "--model", str(finished)]) == ExitCode.SETTINGS


def test_an_adapter_is_merged_into_its_base(finished: Path, tiny_model: Path, tmp_path: Path):
    for kind in ("hf", "gguf"):
        command = ["export", "--model", str(finished / "adapter"), "--base", str(tiny_model)]
        assert run([*command, "--to", kind, "--output", str(tmp_path / kind)]) == 0
    expected = answers(finished / "final")
    assert answers(tmp_path / "hf") == expected
    assert answers(tmp_path / "gguf", **from_gguf(tmp_path / "gguf")) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gguf", "hf"]


def test_the_embedded_model_answers_20_prompts_from_gguf_as_from_its_folder(tmp_path: Path):
    """Its first layers do: with its own tokenizer, head and sizes, and in a tenth of the time."""
    import os

    from transformers import AutoModelForCausalLM

    from entrypoint.models.embedded.materialise import embedded_folder, materialise

    whole, short, output = embedded_folder(os.environ), tmp_path / "short", tmp_path / "smollm2"
    materialise(whole)
    shutil.copytree(whole, short, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(whole, num_hidden_layers=3).save_pretrained(short)
    (short / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert run(["export", "--model", str(short), "--to", "gguf", "--output", str(output)]) == 0
    expected = answers(short, tokens=8)
    assert len({str(answer[-8:]) for answer in expected}) > 1
    assert answers(output, tokens=8, **from_gguf(output)) == expected
    assert "license: apache-2.0" in (output / "README.md").read_text()


def test_llama_cpp_answers_20_prompts_as_the_folder_does(tmp_path: Path):
    """Where it is installed: pip builds it from source, which takes minutes."""
    import os
    from itertools import islice

    llama_cpp = pytest.importorskip("llama_cpp")
    from transformers import AutoTokenizer

    from entrypoint.models.embedded.materialise import embedded_folder, materialise

    folder, output = embedded_folder(os.environ), tmp_path / "smollm2"
    materialise(folder)
    assert run(["export", "--model", str(folder), "--to", "gguf", "--output", str(output)]) == 0
    (file,) = output.glob("*.gguf")
    model = llama_cpp.Llama(str(file), n_ctx=512, verbose=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for question, expected in zip(QUESTIONS, answers(folder, tokens=8), strict=True):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        model.reset()
        assert [*islice(model.generate(prompt, temp=0.0, repeat_penalty=1.0), 8)] == expected[-8:]


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("q8_0", 0, 0.02), ("q4_1", 0.02, 0.2), ("q4_0", 0.02, 0.2)]
)
def test_gguf_files_of_whole_numbers_answer_as_their_folder_as_far_as_rounding_lets_them(
    finished: Path, tmp_path: Path, kind: str, least: float, most: float
):
    command = ["export", "--model", str(finished), "--to", "gguf", "--gguf-type", kind]
    assert run([*command, "--output", str(tmp_path / "out")]) == 0
    rounded = from_gguf(tmp_path / "out")
    plain, found = logits(finished / "final"), logits(tmp_path / "out", **rounded)
    assert least < (found - plain).norm() / plain.norm() < most
    if kind == "q8_0":
        expected = answers(finished / "final")
        assert answers(tmp_path / "out", **rounded) == expected


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "peft"], ExitCode.MODEL, "no adapter to export"),
        (["--push", "name"], ExitCode.SETTINGS, "no ORG/NAME"),
        (["--push", "acme/new"], ExitCode.SETTINGS, "HF_HUB_OFFLINE"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_written(
    arguments: list[str], code: int, words: str, tiny_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    command = ["export", "--model", str(tiny_model), "--output", str(tmp_path / "out")]
    assert run([*command, *arguments]) == code
    assert words in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_push_needs_a_token(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert run(["export", "--model", str(tiny_model), "--push", "a/b"]) == ExitCode.SETTINGS
    assert "HF_TOKEN" in capsys.readouterr().err


def test_an_export_is_pushed_when_that_is_asked_for(
    server: HubServer, tmp_path: Path, finished: Path
):
    launcher = Launcher(server, tmp_path)
    server.writers = {TOKEN}
    command = ("export", "--model", finished, "--output", "out", "--push", "acme/new", "--private")
    process = launcher.train(*command, HF_TOKEN=TOKEN)
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, out + error
    repo = server.repos["acme/new"]
    assert repo.private
    assert repo.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert f"pushed: {server.url}/acme/new/commit/" in out
    assert TOKEN not in out + error
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    # to the storage, which is another origin, no token goes
    assert {one.token for one in server.log if one.storage} == {None}
    refused = launcher.train(*command[:-4], "again", *command[-3:], HF_TOKEN="hf_reader")
    out, error = refused.communicate(timeout=240)
    assert refused.returncode == ExitCode.MODEL, out + error
    assert "was not pushed" in error
    assert (tmp_path / "again" / "README.md").is_file()


def test_one_prompt_prints_the_answer_alone(finished: Path, capsys: pytest.CaptureFixture[str]):
    from transformers import AutoTokenizer

    command = ["chat", "--model", str(finished), "--prompt", "Book Oslo.", "--system", "Be brief."]
    assert run([*command, "--max-new-tokens", "5", "--dtype", "fp32"]) == 0
    said = capsys.readouterr()
    system = {"role": "system", "content": "Be brief."}
    (expected,) = answers(finished / "final", ["Book Oslo."], 5, opening=[system])
    tokenizer = AutoTokenizer.from_pretrained(finished / "final")
    start = tokenizer.decode(expected).index("assistant\n") + len("assistant\n")
    assert said.out == tokenizer.decode(expected)[start:] + "\n"
    assert "loading" in said.err
    assert run([*command, "--max-new-tokens", "5", "--temperature", "2.0"]) == 0
    assert capsys.readouterr().out != said.out


def test_base_and_tuned_are_shown_side_by_side(finished: Path, capsys: pytest.CaptureFixture[str]):
    command = ["chat", "--model", str(finished), "--compare", "--prompt", "Book Oslo."]
    assert run([*command, "--max-new-tokens", "5"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.index("base") < first.index("tuned")
