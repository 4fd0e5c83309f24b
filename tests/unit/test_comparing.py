"""entrypoint.comparing: what could never be judged or compared is refused before any work."""

import json
from pathlib import Path

import pytest

from entrypoint import comparing
from entrypoint.comparing import check_gates, compare_models
from entrypoint.errors import DataError, SettingsError
from entrypoint.schemes import METHODS
from entrypoint.scoring import Asked
from entrypoint.settings import Settings
from tests.reports import write_run
from tests.unit.data.sets import lines, sft
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


def test_a_result_of_other_rows_is_refused_before_a_model_is_scored(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(comparing, "score", lambda *_: pytest.fail("it was scored"))
    scored = write_run(tmp_path / "run").evaluation("base")
    for name, rows, words in (
        ("others", 3, "scored on bookings, .* on others"),
        ("bookings", 3, "has 40 samples and .* 3"),
        ("bookings", 40, "sample 0 of base is not the one of"),
    ):
        path = tmp_path / str(rows) / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(lines([sft(number) for number in range(rows)]))
        asked = Asked(data=str(path), device="cpu")
        with pytest.raises(DataError, match=words):
            compare_models(
                [str(scored), str(tiny_model)], asked, {}, gates=(), output=tmp_path / "out"
            )
    assert not (tmp_path / "out").exists()


def test_results_of_other_samples_are_refused_before_a_third_model_is_scored(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(comparing, "score", lambda *_: pytest.fail("it was scored"))
    runs = [write_run(tmp_path / name) for name in ("one", "two")]
    short = json.loads(runs[1].evaluation("tuned").read_text())
    short["samples"]["bookings"].pop()
    runs[1].evaluation("tuned").write_text(json.dumps(short))
    references = [
        str(runs[0].evaluation("base")), str(runs[1].evaluation("tuned")), f"new={tiny_model}",
    ]  # fmt: skip
    asked = Asked(tasks=("embedded",), device="cpu")
    with pytest.raises(DataError, match="base has 40 samples and tuned 39"):
        compare_models(references, asked, {}, gates=(), output=tmp_path / "out")
