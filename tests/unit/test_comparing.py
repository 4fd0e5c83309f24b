"""entrypoint.comparing: conditions that could never be judged are refused before training."""

from pathlib import Path

import pytest

from entrypoint.comparing import check_gates
from entrypoint.errors import SettingsError
from entrypoint.schemes import METHODS
from entrypoint.settings import Settings
from tests.unit.factories import dataset


@pytest.mark.parametrize("method", METHODS)
def test_a_condition_may_name_a_copy_of_any_method(method):
    settings = Settings(
        then=("quantize", "eval"), quantize_methods=("8da4w", method),
        gates=(f"exact_match>={method}-0.01", "loss<=8da4w+0.1"),
    )  # fmt: skip
    check_gates(settings, dataset(held_out=10))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"then": ("eval", "quantize"), "gates": ("loss<=8da4w",)},
            "8da4w is neither a number nor",
        ),
        ({"then": ("quantize", "eval"), "gates": ("loss<=int8-dynamic",)}, "nor a model"),
        ({"then": ("quantize",), "gates": ("loss<=1",)}, "needs scores"),
        ({"then": ("eval",), "gates": ("acc>=1",)}, "there is no score acc"),
    ],
)
def test_a_condition_on_what_will_not_be_there_is_refused(asked: dict, words: str):
    with pytest.raises(SettingsError, match=words):
        check_gates(Settings(**asked), dataset(held_out=10))


def test_a_condition_on_a_task_of_lm_eval_is_held_to_what_the_task_says_it_scores(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("task: mine\noutput_type: multiple_choice\n")
    asked = {"then": ("eval",), "tasks": ("mine",), "tasks_folder": tmp_path}
    check_gates(Settings(**asked, gates=("mine/acc_norm>=0.5", "acc>base")), dataset())
    with pytest.raises(SettingsError, match="no score exact_match") as caught:
        check_gates(Settings(**asked, gates=("exact_match>=0.5",)), dataset())
    assert "mine/acc, mine/acc_norm" in str(caught.value.hint)
