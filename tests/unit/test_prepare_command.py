"""`train prepare`, as a shell sees it."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from entrypoint.cli import run
from entrypoint.data import checks, names, shapes
from tests.unit.data.sets import lines, sft, turn


@pytest.fixture
def base(tmp_path: Path, tiny_model: Path) -> list[str]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([sft(n) for n in range(60)]))
    return [
        "prepare",
        "--data",
        str(path),
        "--model",
        str(tiny_model),
        "--output",
        str(tmp_path / "out"),
    ]


def test_a_folder_that_is_taken_is_refused_before_a_model_is_asked_for(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "out").mkdir()
    assert run([*base, "--model", str(tmp_path / "nowhere")]) == 3
    assert "exists already" in " ".join(capsys.readouterr().err.split())


def test_names_are_those_that_do_something():
    assert tuple(checks.CHECKS) == names.CHECKS
    assert tuple(shapes.FORMATS) == names.FORMATS
    assert tuple(shapes.PRESETS) == names.PRESETS


def test_a_report_is_printed_for_people(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run([*base, "--preview", "1", "--policy", "duplicates=error"]) == 0
    text = capsys.readouterr().out
    for part in (
        "60 read, messages",
        "trained ",
        "packed ",
        "█",
        "-- row 1: ",
        "<|im_end|>",
        "folder",
    ):
        assert part in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "train.jsonl", "eval.jsonl", "dataset.json",
    }  # fmt: skip


def test_a_report_is_printed_as_json(base: list[str], capsys: pytest.CaptureFixture[str]):
    assert run([*base, "--json", "--eval-fraction", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"]["rows"] == 60
    assert found["tokens"].keys() == {
        "max_seq_len", "sequences", "total", "trained", "trained_share", "median", "longest",
        "histogram", "packed_sequences", "packing_efficiency", "padding_efficiency",
    }  # fmt: skip
    assert json.loads((Path(found.pop("folder")) / "dataset.json").read_text()) == found


def test_rows_come_from_standard_input(
    base: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    class Standard:
        buffer = io.BytesIO(b"prompt\tcompletion\n" + b"".join(b"q%d\ta\n" % n for n in range(60)))

    monkeypatch.setattr(sys, "stdin", Standard)
    assert run([*base, "--data", "-", "--no-tokens", "--max-rows", "50"]) == 0
    found = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (found["format"], found["train"]["rows"]) == ("prompt-completion", 50)
    Standard.buffer = io.BytesIO(b'{"prompt": 1')
    assert run([*base, "--data", "-", "--output", str(tmp_path / "other")]) == 4
    assert "where: standard input, line 1\n" in capsys.readouterr().err


def test_packing_of_the_built_in_data(base: list[str], capsys: pytest.CaptureFixture[str]):
    assert run([*base, "--data", "embedded", "--max-seq-len", "1024", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tokens"]
    assert found["sequences"] == 1_200
    assert 0.95 <= found["packing_efficiency"] <= 1


def test_a_model_without_a_chat_template_counts_texts_alone(
    base: list[str], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
):
    plain = Path(shutil.copytree(tiny_model, tmp_path / "plain"))
    (plain / "chat_template.jinja").unlink()
    asked = [*base, "--model", str(plain)]
    assert run(asked) == 5
    assert "no chat template" in capsys.readouterr().err
    path = tmp_path / "texts.jsonl"
    path.write_bytes(lines([{"text": f"text {n}"} for n in range(60)]))
    assert run([*asked, "--data", str(path)]) == 0


def test_colours_say_what_is_trained(tiny_model: Path):
    from entrypoint.data.chat import Chat
    from entrypoint.data.report import CUT, MASKED, TRAINED, coloured

    chat = Chat(str(tiny_model))
    (encoded,) = chat.encode([([turn("user", "q"), turn("assistant", "a")], None)])
    text = coloured(encoded, chat, len(encoded.ids) - 1)
    assert text.plain == encoded.text
    assert [(text.plain[span.start : span.end], span.style) for span in text.spans] == [
        ("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", MASKED),
        ("a<|im_end|>", TRAINED),
        ("\n", CUT),
    ]


def test_leakage_of_the_built_in_task(base: list[str], tmp_path: Path):
    from entrypoint.data.source import EMBEDDED_FOLDER

    arguments = [*base, "--no-tokens", "--check-leakage", "embedded", "--eval-fraction", "0"]
    assert run([*arguments, "--data", str(EMBEDDED_FOLDER / "eval.jsonl")]) == 0
    found = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert found["checks"]["leakage"]["rows"] == 200


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--format", "nothing"], 2, "alpaca"),
        (["--columns", "prompt"], 2, "FIELD=COLUMN"),
        (["--eval-fraction", "1"], 2, "--eval-fraction"),
        (["--eval-fraction", "nan"], 2, "nan is not a finite"),
        (["--policy", "nothing=drop"], 3, "no check nothing"),
        (["--preset", "truthy-dpo"], 3, "names the data itself"),
        (["--split", "train"], 3, "has no splits"),
        (["--no-tokens", "--preview", "1"], 3, "--no-tokens"),
        (["--format", "alpaca"], 4, "no column for instruction"),
        (["--max-seq-len", "3"], 4, "no token to learn from"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_their_code(
    base: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, word: str
):
    assert run([*base, *arguments]) == code
    assert word in capsys.readouterr().err
