"""entrypoint.plan: every decision, without effects."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.errors import DataError, SettingsError
from entrypoint.models.tensors import decoder_tensors
from entrypoint.plan import EMBEDDED_STEPS, OPTION_OF_KEY, decided, default_lr, warmup
from tests.unit.factories import MODEL, plan


def test_the_original_tutorials_variables_exist():
    variables = plan().variables
    assert {
        name: variables[name]
        for name in ("train_path", "log_dir", "model_dir", "model_output_dir", "metric_logger")
    } == {
        "train_path": "/data/train.jsonl",
        "log_dir": "/outputs/run/logs",
        "model_dir": "/models/m",
        "model_output_dir": "/outputs/run/checkpoints",
        "metric_logger": "DiskLogger",
    }


def test_loggers_reach_the_recipe_under_our_name_and_the_tutorials():
    assert plan(loggers=("wandb",)).variables["metric_logger"] == "WandBLogger"
    both = plan(loggers=("tensorboard", "mlflow")).variables
    assert (both["loggers"], both["metric_logger"]) == (["tensorboard", "mlflow"], "DiskLogger")


@pytest.mark.parametrize(
    ("method", "builder"),
    [
        ("lora", "torchtune.models.llama3_2.lora_llama3_2"),
        ("full", "torchtune.models.llama3_2.llama3_2"),
    ],
)
def test_the_method_picks_the_builder(method: str, builder: str):
    found = plan(method=method)
    assert found.recipe == "entrypoint.tune.recipe"
    assert found.variables["model"]["_component_"] == builder
    assert ("lora_rank" in found.variables["model"]) == (method == "lora")


@pytest.mark.parametrize(
    ("settings", "rows", "expected"),
    [
        ({}, 1_000, (1, EMBEDDED_STEPS)),
        ({"max_steps": 60}, 1_000, (1, 60)),
        ({"epochs": 2}, 1_000, (2, 250)),
        ({"data": "mine.jsonl"}, 1_000, (1, 250)),
        ({"data": "mine.jsonl", "max_steps": 500}, 1_000, (1, 250)),
        ({"data": "mine.jsonl", "epochs": 3, "max_steps": 300}, 1_000, (2, 150)),
        ({"data": "mine.jsonl", "epochs": 3, "max_steps": 5}, 1_000, (1, 5)),
    ],
)
def test_epochs_and_steps_stay_within_max_steps(
    settings: dict, rows: int, expected: tuple[int, int]
):
    found = plan(rows=rows, **settings)
    assert (found.epochs, found.steps_per_epoch) == expected


@given(
    rows=st.integers(1, 10_000),
    batch_size=st.integers(1, 64),
    epochs=st.integers(1, 5),
    max_steps=st.integers(1, 5_000),
)
def test_never_more_steps_than_asked_for(rows: int, batch_size: int, epochs: int, max_steps: int):
    settings = {"batch_size": batch_size, "epochs": epochs, "max_steps": max_steps}
    if rows < batch_size:
        with pytest.raises(DataError, match="do not fill one batch"):
            plan(rows=rows, data="mine", **settings)
        return
    found = plan(rows=rows, data="mine", **settings)
    available = epochs * (rows // batch_size)
    assert 1 <= found.steps <= min(max_steps, available)
    # rounding down to whole epochs costs less than one step an epoch
    assert found.steps > min(max_steps, available) - found.epochs


def test_every_key_that_the_plan_decides_has_its_option():
    assert decided(plan()).keys() == OPTION_OF_KEY.keys()
    assert decided(plan(epochs=2))["epochs"] == 2


def test_a_short_context_is_the_default_length():
    short = dataclasses.replace(MODEL, context=512)
    assert plan(model=short).variables["max_seq_len"] == 512
    assert plan().variables["max_seq_len"] == 2048


def test_short_rows_are_laid_together_and_a_long_one_has_room():
    assert plan(max_seq_len=512).variables["packing_window"] == 2048
    assert plan(max_seq_len=4096).variables["packing_window"] == 4096


def test_a_row_longer_than_the_context_is_refused():
    with pytest.raises(SettingsError, match="TRAIN_MAX_SEQ_LEN"):
        plan(max_seq_len=8193)


def test_the_learning_rate_falls_with_size_and_can_be_given():
    assert default_lr("lora", 135_000_000) == 2e-3
    assert default_lr("lora", 8_000_000_000) == pytest.approx(2.6e-4)
    assert default_lr("full", 8_000_000_000) < default_lr("lora", 8_000_000_000)
    assert plan(lr=0.5).variables["lr"] == 0.5


def test_warmup_is_a_tenth_with_a_limit():
    assert [warmup(steps) for steps in (1, 40, 10_000)] == [0, 4, 100]


def test_disk_grows_with_what_is_written():
    llama3 = decoder_tensors(
        vocab=128_256, hidden=4096, inner=14_336, layers=32, heads=32, kv_heads=8, head_dim=128,
        tied=False,
    )  # fmt: skip
    big = dataclasses.replace(MODEL, parameters=8_000_000_000, tensors=llama3)
    weights = 8_000_000_000 * 4
    lora, full = plan(model=big).disk_bytes, plan(model=big, method="full").disk_bytes
    adapter = 16 * 32 * ((4096 + 4096) * 2 + (4096 + 1024) + 3 * (4096 + 14_336))
    assert lora == weights * 1.25 + 3 * 4 * adapter
    assert full == weights * 1.25 + weights * 3
    assert plan(model=big, then=("quantize",)).disk_bytes == lora + 2 * weights
    # two are kept and one is being written
    saved = {"model": big, "method": "full", "save_every": 1}
    assert plan(**saved).disk_bytes == weights * 1.25 + weights * 9
    assert plan(**saved, keep=1).disk_bytes == weights * 1.25 + weights * 6


def test_validation_needs_held_out_rows():
    with pytest.raises(SettingsError, match="no held-out rows"):
        plan(eval_every=5)


def test_a_path_to_resume_from_does_not_depend_on_the_working_directory():
    assert plan().variables["resume"] is None
    assert plan(resume="auto", output=Path("run")).variables["resume"] == "auto"
    assert plan(resume="there/step_3").variables["resume"] == str(Path.cwd() / "there/step_3")
