"""The command of a job."""

from pathlib import Path

import click
import pytest

from entrypoint.errors import SettingsError
from scripts.aml.arguments import parse


def test_a_command_gets_the_output_and_goes_on_by_itself():
    assert parse(("sft", "--max-steps", "2")).argv == (
        "train", "sft", "--max-steps", "2",
        "--output", "${{outputs.run}}", "--resume", "auto",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "output"),
    [
        (("quantize",), "${{outputs.run}}/quantized/8da4w"),
        (("quantize", "--method", "int8-dynamic"), "${{outputs.run}}/quantized/int8-dynamic"),
        (("eval", "--limit", "8"), "${{outputs.run}}/eval/result.json"),
    ],
)
def test_what_does_not_train_writes_where_a_run_would(args, output):
    assert parse(args).argv[-2:] == ("--output", output)


def test_options_come_from_variables_too(monkeypatch):
    monkeypatch.setenv("TRAIN_MAX_STEPS", "3")
    monkeypatch.setenv("TRAIN_SET", "optimizer.weight_decay=0 clip_grad_norm=1")
    monkeypatch.setenv("TRAIN_THEN", "eval,quantize")
    argv = parse(("kd", "--teacher", "Qwen/Qwen2-1.5B-Instruct")).argv
    assert argv[:2] == ("train", "kd")
    assert " ".join(argv).count("--set") == 2
    assert {"optimizer.weight_decay=0", "clip_grad_norm=1", "3", "eval,quantize"} < set(argv)


def test_local_paths_and_assets_become_inputs(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    command = parse(("dpo", "--data", str(rows), "--model", "azureml:base@latest"))
    assert command.inputs == {"data": str(rows), "model": "azureml:base@latest"}
    assert "${{inputs.data}}" in command.argv
    assert "${{inputs.model}}" in command.argv
    assert str(rows) not in command.argv


def test_models_of_the_hub_and_the_built_in_ones_stay_what_they_are():
    command = parse(("sft", "--model", "microsoft/phi-4", "--data", "embedded"))
    assert command.inputs == {}
    assert "microsoft/phi-4" in command.argv


def test_a_recipe_of_ones_own_is_shipped(tmp_path: Path):
    template = tmp_path / "mine.yaml.j2"
    template.write_text("a: 1")
    command = parse(("sft", "--recipe", str(template)))
    assert command.shipped == {"files/mine.yaml.j2": template}
    assert "files/mine.yaml.j2" in command.argv


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ((), "nothing is no command of a job"),
        (("prepare",), "prepare is no command of a job"),
        (("sft", "--output", "x"), "the run folder of a job is its output"),
        (("sft", "--data", "-"), "- is not there where the job runs"),
        (("sft", "--data", "rows/*.jsonl"), "is not there where the job runs"),
        (("sft", "--data", "./missing.jsonl"), "./missing.jsonl does not exist"),
        (("sft", "--recipe", "missing.j2"), "missing.j2 does not exist"),
        (("sft", "--early-stop", "2"), "there is no validation loss to stop by"),
    ],
)
def test_what_no_job_can_run_is_refused(args, complaint):
    with pytest.raises(SettingsError) as refused:
        parse(args)
    assert complaint in str(refused.value)


def test_an_option_that_train_does_not_take_is_refused():
    with pytest.raises(click.UsageError, match="--max-step"):
        parse(("sft", "--max-step=2", "--bogus"))
