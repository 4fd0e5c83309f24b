"""DPO and KD in the recipe: held against torchtune's own recipes, and resumed."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from entrypoint.data.source import EMBEDDED_PAIRS
from entrypoint.errors import Interrupted, SettingsError
from tests.recipes import STOCK_LOSS, few_rows, losses, recipe, train, train_stock
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.e2e

PLAIN = ("packing_window=null", "fused_layers=false")
"""What turns the speed-ups off."""
UNCLIPPED = "clip_grad_norm=null"
"""torchtune's DPO recipe clips no gradients."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wider than the student, and in several files."""
    return write_tiny_model(
        tmp_path_factory.mktemp("models") / "teacher", hidden=128, shards=True, tied=False
    )


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return few_rows(tmp_path / "pairs", train=12, source=EMBEDDED_PAIRS)


def of_dpo(data: str, **more: Any) -> dict[str, Any]:
    return {"objective": "dpo", "epochs": 2, "data": data, "max_steps": None} | more


def of_kd(teacher: Path, **more: Any) -> dict[str, Any]:
    return {"objective": "kd", "teacher": str(teacher)} | more


@pytest.mark.parametrize("loss", ["sigmoid", "hinge"])
def test_dpo_losses_equal_those_of_torchtunes_recipe(
    loss: str, pairs: str, tiny_model: Path, tmp_path: Path
):
    """Step by step, over the border of an epoch, with gradient accumulation."""
    overrides = (*PLAIN, UNCLIPPED, "gradient_accumulation_steps=2")
    given = of_dpo(pairs, loss=loss, batch_size=2)
    stock = train_stock(recipe(tiny_model, tmp_path / "stock", *overrides, **given))
    ours = train(recipe(tiny_model, tmp_path / "ours", *overrides, **given))
    assert len(stock) == len(ours) == 6
    assert losses(ours) == pytest.approx(losses(stock), abs=1e-5)
    assert losses(ours)[-1] < losses(ours)[0] - 0.05, "nothing was learned"


def test_dpo_metrics_equal_those_of_torchtunes_recipe(pairs: str, tiny_model: Path, tmp_path: Path):
    """Without accumulation: it logs the figures of a step's last part alone."""
    given = of_dpo(pairs, batch_size=4)
    stock = train_stock(recipe(tiny_model, tmp_path / "stock", *PLAIN, UNCLIPPED, **given))
    ours = train(recipe(tiny_model, tmp_path / "ours", *PLAIN, UNCLIPPED, **given))
    names = [name for name in stock[0] if name.startswith(("rewards/", "log_probs/"))]
    assert len(names) == 6
    for name in names:
        assert [step[name] for step in ours] == pytest.approx(
            [step[name] for step in stock], abs=1e-4
        )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_dpo_learns_the_same_packed_and_with_a_precomputed_reference(
    method: str, pairs: str, tiny_model: Path, tmp_path: Path
):
    given = of_dpo(pairs, method=method, eval_every=3)
    plain = train(recipe(tiny_model, tmp_path / "plain", *PLAIN, **given))
    packed = train(recipe(tiny_model, tmp_path / "packed", "packing_window=400", **given))
    known = train(recipe(tiny_model, tmp_path / "known", precompute_reference=True, **given))
    for fast in (packed, known):
        assert losses(fast) == pytest.approx(losses(plain), abs=1e-5)
        for name in ("tokens", "tokens_trained", "rewards/margins", "validation_loss"):
            assert [step.get(name, 0) for step in fast] == pytest.approx(
                [step.get(name, 0) for step in plain], abs=1e-4
            )
    assert plain[2]["validation_rewards/accuracies"] in (0, 0.25, 0.5, 0.75, 1)


@pytest.mark.parametrize(
    ("objective", "method", "more"),
    [
        ("dpo", "lora", {"loss": "ipo", "precompute_reference": True}),
        ("dpo", "full", {"loss": "hinge"}),
        ("kd", "lora", {"temperature": 2.0}),
        ("kd", "full", {"kl": "reverse"}),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(
    objective: str, method: str, more: dict, teacher: Path, tiny_model: Path, tmp_path: Path
):
    given = of_kd(teacher) if objective == "kd" else {"objective": "dpo"}
    given |= {"method": method, "max_steps": 4, **more}
    straight = train(recipe(tiny_model, tmp_path / "straight", **given))
    with pytest.raises(Interrupted, match="after step 2"):
        train(recipe(tiny_model, tmp_path / "run", resume="auto", **given), stop_after=2)
    resumed = train(recipe(tiny_model, tmp_path / "run", resume="auto", **given))
    assert [step["step"] for step in resumed] == [1, 2, 3, 4]
    own = [name for name in straight[0] if "/" in name or name in ("cross_entropy", "loss")]
    assert len(own) >= 2
    assert [[step[name] for name in own] for step in resumed] == [
        [step[name] for name in own] for step in straight
    ]
    weights = [
        load_file(tmp_path / name / "checkpoints" / "epoch_0" / "model-00001-of-00001.safetensors")
        for name in ("straight", "run")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("objective", "method"),
    [("dpo", "dora"), ("dpo", "qlora"),
     ("kd", "dora"), ("kd", "qlora"), ("kd", "qat"), ("kd", "qat-lora")],
)  # fmt: skip
def test_every_method_learns_from_preferences_and_teachers(
    objective: str, method: str, teacher: Path, tiny_model: Path, tmp_path: Path
):
    given = of_kd(teacher) if objective == "kd" else {"objective": "dpo"}
    steps = train(recipe(tiny_model, tmp_path / "run", method=method, **given))
    assert losses(steps)[-1] < losses(steps)[0] - 0.005
    if objective == "dpo":
        # the reference is the base as it is trained on, in NF4 too, so that nothing differs yet
        assert losses(steps)[0] == pytest.approx(math.log(2), abs=1e-6)
        assert steps[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)
        assert steps[-1]["rewards/margins"] > 0
    made = tmp_path / "run" / "checkpoints" / "epoch_0"
    assert (made / "adapter_config.json").is_file() == (method != "qat")


def test_the_reference_is_asked_once_and_only_about_rows_that_are_met(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = {"objective": "dpo", "precompute_reference": True, "max_steps": 2}
    # a window holds one pair
    short = "packing_window=256"
    config = recipe(tiny_model, tmp_path / "run", short, resume="auto", **given)
    with pytest.raises(Interrupted, match="log-probabilities of 3 pairs"):
        # a look behind each forward pass
        train(config, stop_at_look=3)
    (cache,) = (tmp_path / "run" / "reference").glob("*.safetensors")
    assert len(load_file(cache)["keys"]) == 3
    steps = train(config)
    assert len(steps) == 2
    assert len(load_file(cache)["keys"]) == 8, "two steps of four pairs"
    said = capsys.readouterr().out
    assert "0 of 8 pairs" in said
    assert "0 of 5 pairs" in said, "what was known was computed again"
    before = cache.stat().st_mtime_ns
    train(recipe(tiny_model, tmp_path / "run", short, resume="auto", **given))
    assert cache.stat().st_mtime_ns == before


def test_kd_learns_the_same_with_the_speed_ups_on(teacher: Path, tiny_model: Path, tmp_path: Path):
    data = few_rows(tmp_path / "data", train=16, held_out=8)
    given = of_kd(teacher, data=data, eval_every=4, max_steps=4, temperature=2.0)
    plain = train(recipe(tiny_model, tmp_path / "plain", *PLAIN, **given))
    fast = train(recipe(tiny_model, tmp_path / "fast", "packing_window=130", **given))
    assert losses(fast) == pytest.approx(losses(plain), abs=1e-5)
    assert fast[3]["validation_loss"] == pytest.approx(plain[3]["validation_loss"], abs=1e-5)


@pytest.mark.parametrize(("kl", "component"), [("forward", "ForwardKL"), ("reverse", "ReverseKL")])
def test_kd_losses_equal_those_of_torchtunes_recipe(
    kl: str, component: str, teacher: Path, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """Its recipe takes the gradient of a mean over tokens and divides it by their number once more;
    this is taken back, and there is no accumulation, of means with different numbers."""
    monkeypatch.setattr("torchtune.training.scale_grads", lambda *_: None)
    data = few_rows(tmp_path / "data", train=12)
    overrides = (
        *PLAIN, STOCK_LOSS,
        f"kd_loss={{_component_: torchtune.modules.loss.{component}WithChunkedOutputLoss}}",
    )  # fmt: skip
    given = of_kd(teacher, data=data, epochs=2, batch_size=4, max_steps=None, kl=kl)
    stock = train_stock(recipe(tiny_model, tmp_path / "stock", *overrides, **given))
    ours = train(recipe(tiny_model, tmp_path / "ours", *overrides, **given))
    fast = train(recipe(tiny_model, tmp_path / "fast", **given))
    assert len(stock) == len(ours) == len(fast) == 6
    assert losses(ours) == pytest.approx(losses(stock), abs=1e-5)
    for names in (("cross_entropy", "class_loss"), ("kl_divergence", "kd_loss")):
        assert [step[names[0]] for step in ours] == pytest.approx(
            [step[names[1]] for step in stock], abs=1e-5
        )
    assert [step["cross_entropy"] for step in fast] == pytest.approx(
        [step["cross_entropy"] for step in ours], abs=1e-5
    )
    if kl == "reverse":
        assert losses(fast) == pytest.approx(losses(ours), abs=1e-5)
    else:  # torchtune's forward divergence is a cross-entropy, larger by the teacher's entropy
        assert all(
            one["kl_divergence"] < other["kl_divergence"] - 1
            for one, other in zip(fast, ours, strict=True)
        )


def test_a_pair_may_be_longer_than_a_row(tiny_model: Path, tmp_path: Path):
    """Both answers of a pair share a window."""
    given = {"objective": "dpo", "max_steps": 2, "max_seq_len": 130}
    longest = max(step["tokens"] for step in train(recipe(tiny_model, tmp_path / "run", **given)))
    assert longest > 4 * 130


def test_a_models_own_base_teaches_without_a_second_copy(tiny_model: Path, tmp_path: Path):
    own = recipe(tiny_model, tmp_path / "own", **of_kd(tiny_model))
    assert own.teacher_model is None
    apart = recipe(tiny_model, tmp_path / "apart", **of_kd(tiny_model))
    apart.teacher_model = {
        key: value
        for key, value in apart.model.items()
        if "lora" not in key or key == "_component_"
    }
    apart.teacher_model._component_ = "torchtune.models.llama3_2.llama3_2"
    one, other = train(own), train(apart)
    assert losses(one) == pytest.approx(losses(other), abs=1e-6)
    assert one[0]["kl_divergence"] == pytest.approx(0, abs=1e-6)
    assert one[-1]["kl_divergence"] > 1e-6


def test_an_unknown_objective_is_refused(tiny_model: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="no objective ppo"):
        train(recipe(tiny_model, tmp_path / "run", "+objective=ppo"))
