"""entrypoint.cli: help, exit codes and messages, as a shell sees them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from entrypoint import launch, loggers, pipeline, schemes, templates
from entrypoint.cli import run, train
from entrypoint.data.source import EMBEDDED_PAIRS
from entrypoint.errors import (
    ChildError,
    DoesNotFitError,
    ExitCode,
    Interrupted,
    TrainError,
    TrainingError,
)
from tests.documents import ROOT


@pytest.fixture
def base(tiny_model: Path, rows: Path, tmp_path: Path) -> list[str]:
    """A run that is all right; dry, so that it costs nothing."""
    return [
        "sft", "--dry-run", "--model", str(tiny_model), "--data", str(rows),
        "--max-seq-len", "256", "--output", str(tmp_path / "out"),
    ]  # fmt: skip


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]):
    """Run, expect an exit code and words on standard error, and nothing like a traceback."""

    def check(arguments: list[str], code: int, *words: str) -> None:
        assert run(arguments) == code
        error = capsys.readouterr().err
        said = " ".join(error.split())
        for word in words:
            assert word in said
        assert "Traceback" not in error

    return check


@pytest.mark.parametrize(
    "command",
    ["", *sorted(train.commands)],
)
def test_help_is_what_the_documentation_has_and_fits_100_columns(
    capsys: pytest.CaptureFixture[str], command: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "100")
    assert run([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    # a page that `make golden` writes, and test_documentation.py holds
    assert f"```text\n{text.rstrip()}\n```" in (ROOT / "docs" / "commands.md").read_text("utf-8")


def test_a_dry_run_prints_plan_recipe_and_command_and_writes_nothing(
    base: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    before = sorted(tmp_path.rglob("*"))
    assert run(base) == 0
    text = capsys.readouterr().out
    for part in ("steps", "lora_llama3_2", "-m entrypoint.tune run entrypoint.tune.recipe"):
        assert part in text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_of_the_embedded_pair_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAIN_CACHE", str(tmp_path / "cache"))
    assert run(["sft", "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "lorra"], ["--method", "lora", "full"]),
        (["--then", "eval,quantise"], ["--then", "'quantise'", "eval, quantize"]),
        (["--then", "eval,eval"], ["--then", "twice"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--lr", "fast"], ["--lr", "fast"]),
        (["--no-such-option"], ["--no-such-option"]),
    ],
)
def test_2_usage(base: list[str], fails, arguments: list[str], words: list[str]):
    fails([*base, *arguments], ExitCode.USAGE, *words)


def test_2_usage_from_a_variable(base: list[str], fails, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRAIN_METHOD", "lorra")
    fails(base, ExitCode.USAGE, "lorra")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("model: {{ no_such_name }}", ["no_such_name", "train_path"]),
        ("model: [", ["not valid YAML"]),
        (None, ["cannot be read"]),
    ],
)
def test_3_a_broken_template(base: list[str], fails, tmp_path: Path, template: str | None, words):
    path = tmp_path / "mine.yaml.j2"
    if template:
        path.write_text(template)
    fails([*base, "--recipe", str(path)], ExitCode.SETTINGS, "mine.yaml.j2", *words)
    if template:
        assert path.read_text() == template


def test_3_settings(base: list[str], fails):
    fails([*base, "--set", "optimizer.lrr=1"], ExitCode.SETTINGS, "did you mean optimizer.lr?")
    fails([*base, "--epochs", "2", "--early-stop", "2"], ExitCode.SETTINGS, "--eval-every")
    fails([*base, "--max-seq-len", "513"], ExitCode.SETTINGS, "512")
    fails([*base, "--then", "eval"], ExitCode.SETTINGS, "--tasks")


@pytest.mark.parametrize(
    ("override", "option"),
    [
        ("epochs=2", "--epochs"),
        ("dtype=bf16", "--dtype"),
        ("checkpointer.output_dir=/x", "--output"),
    ],
)
def test_3_a_recipe_that_disagrees_with_the_plan(base: list[str], fails, override, option):
    fails([*base, "--dtype", "fp32", "--set", override], ExitCode.SETTINGS, "the plan says", option)


def test_3_a_template_that_disagrees_with_the_plan(base: list[str], fails, tmp_path: Path):
    path = tmp_path / "mine.yaml.j2"
    shipped = templates.read(templates.shipped("sft"))
    path.write_text(shipped.replace("{{ batch_size | tojson }}", "2"))
    fails([*base, "--recipe", str(path)], ExitCode.SETTINGS, "batch_size: 2", "--batch-size")
    assert run([*base, "--recipe", str(path), "--batch-size", "2"]) == 0


def test_3_a_logger_that_is_not_installed(base: list[str], fails, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loggers, "find_spec", lambda _: None)
    fails([*base, "--log-to", "tensorboard"], ExitCode.SETTINGS, "tensorboard is not", "--log-to")
    monkeypatch.setenv("WANDB_API_KEY", "canary-key-71ab")
    fails(base, ExitCode.SETTINGS, "wandb is not installed", "WANDB_API_KEY")


def test_a_wandb_key_chooses_its_logger_and_is_not_shown(
    base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WANDB_API_KEY", "canary-key-71ab")
    monkeypatch.setattr(loggers, "find_spec", lambda _: object())
    assert run(base) == 0
    text = capsys.readouterr().out
    assert "loggers:\n  - wandb" in text
    assert "canary" not in text


def test_3_an_unknown_task_is_found_before_training(base: list[str], fails):
    fails([*base, "--then", "eval", "--tasks", "nobodys"], ExitCode.SETTINGS, "nobodys")


def test_3_an_output_folder_that_is_taken(base: list[str], fails, tmp_path: Path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    fails(base, ExitCode.SETTINGS, "not empty")
    (folder / "recipe.yaml").write_text("a: run")
    fails(base, ExitCode.SETTINGS, "already holds a run")
    assert (folder / "notes.txt").read_text() == "mine"


def test_3_an_output_folder_within_the_model(base: list[str], fails, tiny_model: Path):
    fails([*base, "--output", str(tiny_model / "run")], 3, "within the model's", "--output")


def test_3_an_unwritable_output_folder(base: list[str], fails, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    fails([*base[:-1], str(tmp_path / "file" / "run")], ExitCode.SETTINGS, "cannot be written")


def test_3_a_folder_without_permission(base: list[str], fails, monkeypatch: pytest.MonkeyPatch):
    # root may write anywhere, so the system's answer is replaced
    monkeypatch.setattr(launch.os, "access", lambda *_: False)
    fails(base, ExitCode.SETTINGS, "cannot be written")


def test_4_data(base: list[str], fails, rows: Path):
    rows.write_text(rows.read_text() + "{\n")
    fails(base, ExitCode.DATA, f"{rows}, line 13", "JSON")
    rows.write_text("")
    fails(base, ExitCode.DATA, str(rows), "no rows")
    rows.unlink()
    fails(base, ExitCode.DATA, "no data at", str(rows))


def test_4_fewer_rows_than_a_batch(base: list[str], fails):
    fails([*base, "--batch-size", "13"], ExitCode.DATA, "12 rows")


def test_4_rows_whose_answers_are_cut_away_are_found_before_training(
    base: list[str], fails, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRAIN_CACHE", str(tmp_path / "cache"))
    question = {"role": "user", "content": "word " * 400}
    row = {"messages": [question, {"role": "assistant", "content": "a"}]}
    rows.write_text(rows.read_text() + json.dumps(row) + "\n")
    arguments = [argument for argument in base if argument != "--dry-run"]
    fails(arguments, ExitCode.DATA, "line 13", "--max-seq-len", "untrained=drop")
    assert not (tmp_path / "out").exists()


def test_rows_of_any_kind_are_prepared_on_the_way(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "rows.csv").write_text("question,answer\n" + "q,a\n" * 8)
    assert run([*base, "--data", str(tmp_path / "rows.csv")]) == 0
    said = capsys.readouterr()
    assert "8 rows" in said.out
    assert "7 rows, duplicates (keep)" in said.err


def test_5_model(base: list[str], fails, tiny_model: Path, tmp_path: Path):
    at = base.index("--model") + 1
    fails(
        [*base[:at], str(tmp_path / "nowhere"), *base[at + 1 :]], ExitCode.MODEL, "no model folder"
    )
    broken = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    os.truncate(broken / "model.safetensors", 5_000)
    fails(
        [*base[:at], str(broken), *base[at + 1 :]], ExitCode.MODEL, "model.safetensors", "cut short"
    )
    fails(["eval", "--model", str(broken)], ExitCode.MODEL, "model.safetensors")
    fails(["quantize", "--model", str(broken)], ExitCode.MODEL, "model.safetensors")


def test_5_no_chat_template(base: list[str], fails, tiny_model: Path, tmp_path: Path):
    plain = Path(shutil.copytree(tiny_model, tmp_path / "plain"))
    (plain / "chat_template.jinja").unlink()
    at = base.index("--model") + 1
    fails([*base[:at], str(plain), *base[at + 1 :]], ExitCode.MODEL, "no chat template")


def test_5_sizes_that_cannot_be_quantized_are_found_before_training(
    base: list[str], fails, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "of_run", lambda _: (schemes.Scheme(group_size=48),))
    fails([*base, "--then", "quantize"], ExitCode.MODEL, "hidden_size 64", "group size 48")


def test_3_a_label_names_a_file(fails, tiny_model: Path):
    fails(["eval", "--model", str(tiny_model), "--label", "../x"], ExitCode.SETTINGS, "TRAIN_LABEL")


def test_6_no_disk_space(base: list[str], fails, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(launch.shutil, "disk_usage", lambda _: usage._replace(free=1_000))
    fails(base, ExitCode.DOES_NOT_FIT, "GiB are free", "--output")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TrainingError("t"), 7),
        (DoesNotFitError("t"), 6),
        (ChildError(3, "t"), 3),
        (Interrupted(2, "t"), 130),
        (Interrupted(15, "t"), 143),
        (TrainError("t"), 1),
    ],
)
def test_errors_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch, fails, error: TrainError, code: int
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "fine_tune", fail)
    fails(["sft"], code, "Error: t")


def test_1_a_bug_says_so_and_debug_shows_it(
    monkeypatch: pytest.MonkeyPatch, fails, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(pipeline, "fine_tune", fail)
    fails(["sft"], ExitCode.BUG, "KeyError: 'oops'", "--debug")
    assert run(["--debug", "sft"]) == ExitCode.BUG
    assert "Traceback" in capsys.readouterr().err


def test_codes_are_the_documented_ones():
    assert json.loads(json.dumps({code.name: code.value for code in ExitCode})) == {
        "OK": 0, "BUG": 1, "USAGE": 2, "SETTINGS": 3, "DATA": 4, "MODEL": 5, "DOES_NOT_FIT": 6,
        "TRAINING": 7, "GATE": 8, "SIGINT": 130, "SIGTERM": 143,
    }  # fmt: skip


def test_4_rows_of_another_kind(tiny_model: Path, rows: Path, fails):
    dry = ["--dry-run", "--model", str(tiny_model), "--max-seq-len", "256"]
    fails(["dpo", *dry, "--data", str(rows)], ExitCode.DATA, "sft, not preference", "rejected")
    pairs = str(EMBEDDED_PAIRS)
    fails(["kd", *dry, "--data", pairs], ExitCode.DATA, "preference, not sft")


def test_5_a_teacher_that_is_not_there(tiny_model: Path, fails, tmp_path: Path):
    dry = ["--dry-run", "--model", str(tiny_model), "--teacher", str(tmp_path / "a" / "none")]
    fails(["kd", *dry], ExitCode.MODEL, "the teacher: there is no model folder", "TRAIN_TEACHER")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["dpo", "--set", "loss.beta=0.3"], "--beta"),
        (["kd", "--set", "kd_ratio=0.3"], "--alpha"),
        (["kd", "--set", "kd_loss.temperature=3"], "--temperature"),
        (["dpo", "--loss", "hinge", "--label-smoothing", "0.1"], "--label-smoothing"),
    ],
)
def test_3_what_has_an_option_belongs_there(
    tiny_model: Path, fails, arguments: list[str], option: str
):
    dry = ["--dry-run", "--model", str(tiny_model), "--max-seq-len", "256"]
    more = ["--teacher", str(tiny_model)] if arguments[0] == "kd" else []
    fails([*arguments, *dry, *more], ExitCode.SETTINGS, option)


@pytest.mark.parametrize("command", ["dpo", "kd"])
def test_a_dry_run_of_every_objective_works_on_what_is_built_in(
    command: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAIN_CACHE", str(tmp_path / "cache"))
    assert run([command, "--dry-run"]) == 0
    assert f"objective: {command}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
