"""entrypoint.objectives: what an objective adds to a plan."""

import dataclasses
from pathlib import Path

import pytest

from entrypoint.errors import SettingsError
from entrypoint.objectives import OPTIONS, said
from entrypoint.plan import decided, make_plan, option_of_key
from tests.unit.factories import MODEL, WORLD, dataset, plan

BIG = dataclasses.replace(
    MODEL, reference="ORG/BIG", folder=Path("/models/big"), parameters=1_000_000_000, context=1024
)


def kd_plan(teacher=BIG, **settings):
    given = plan(objective="kd", **settings).settings
    return make_plan(
        given, WORLD, MODEL, dataset(), root=Path("/out"), template=Path("kd.yaml.j2"),
        teacher=teacher,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            "sigmoid",
            {"_component_": "torchtune.rlhf.loss.DPOLoss", "beta": 0.2, "label_smoothing": 0.0},
        ),
        ("hinge", {"_component_": "torchtune.rlhf.loss.RSOLoss", "gamma": 0.2}),
        ("ipo", {"_component_": "entrypoint.tune.objectives.dpo.IPOLoss", "beta": 0.2}),
    ],
)
def test_the_loss_of_dpo_is_the_component_that_the_option_names(loss: str, expected: dict):
    assert plan(objective="dpo", loss=loss, beta=0.2).variables["preference_loss"] == expected


@pytest.mark.parametrize("objective", ["sft", "dpo", "kd"])
def test_every_key_that_an_objective_decides_has_its_option(objective: str):
    found = plan(objective=objective, precompute_reference=True)
    missing = option_of_key(found.settings).keys() - decided(found).keys()
    # the other loss's name for beta
    assert missing <= {"loss.gamma"}
    assert decided(found).keys() <= option_of_key(found.settings).keys()
    assert OPTIONS.keys() == {"sft", "dpo", "kd"}


def test_the_reference_is_kept_in_the_run_folder():
    assert plan(objective="dpo").variables["reference_folder"] is None
    found = plan(objective="dpo", precompute_reference=True)
    assert found.variables["reference_folder"] == "/outputs/run/reference"


def test_preferences_are_learned_in_smaller_steps():
    assert plan(objective="dpo").variables["lr"] < plan().variables["lr"]
    assert plan(objective="kd").variables["lr"] == plan().variables["lr"]


def test_a_models_own_base_is_no_second_model():
    assert kd_plan(MODEL).variables["teacher_model"] is None
    assert kd_plan(MODEL, method="full").variables["teacher_model"] is not None
    assert kd_plan(max_seq_len=512).variables["teacher_model"]["max_seq_len"] == 512


def test_rows_longer_than_the_teachers_context_are_refused():
    with pytest.raises(SettingsError, match="teacher's context is 1024"):
        kd_plan()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objective": "dpo"}, "DPO, sigmoid, beta 0.1; reference: the base, adapter off"),
        ({"objective": "dpo", "method": "full"}, "reference: a copy of the base"),
        ({"objective": "dpo", "precompute_reference": True}, "computed once"),
        ({"objective": "dpo", "label_smoothing": 0.2}, "label smoothing 0.2"),
        ({"objective": "kd", "alpha": 0.7}, "0.7 x forward KL"),
        ({"objective": "kd", "temperature": 2.0}, "temperature 2"),
    ],
)
def test_the_plan_says_what_is_learned_from(settings: dict, words: str):
    found = plan(**settings)
    assert words in " ".join(said(found.settings, found.model, found.teacher).values())


def test_the_plan_names_the_teacher():
    big = kd_plan(max_seq_len=512)
    assert "ORG/BIG: 1,000 M parameters" in said(big.settings, MODEL, BIG)["teacher"]
    own = kd_plan(MODEL)
    assert "own base" in said(own.settings, MODEL, MODEL)["teacher"]
