"""entrypoint.tune.recipe and the loop: held against torchtune's own recipes, and resumed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from entrypoint.errors import Interrupted, SettingsError, TrainingError
from tests.recipes import UNPACKED, few_rows, losses, metrics, recipe, train, train_stock

pytestmark = pytest.mark.e2e

METHODS = pytest.mark.parametrize("method", ["lora", "full"])


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "epoch_0" / "model-00001-of-00001.safetensors")


@METHODS
def test_losses_equal_those_of_torchtunes_recipe(method: str, tiny_model: Path, tmp_path: Path):
    """Step by step, over the border of an epoch, with gradient accumulation."""
    overrides = (*UNPACKED, "gradient_accumulation_steps=2")
    # torchtune carries rows that fill no step into the next epoch; twelve leave none over
    data = few_rows(tmp_path / "data", train=12)
    given = {"method": method, "epochs": 2, "batch_size": 2, "data": data, "max_steps": None}
    stock = train_stock(recipe(tiny_model, tmp_path / "stock", *overrides, **given))
    ours = train(recipe(tiny_model, tmp_path / "ours", *overrides, **given))
    assert len(stock) == len(ours) == 6
    assert losses(ours) == pytest.approx(losses(stock), abs=1e-5)
    assert [step["grad_norm"] for step in ours] == pytest.approx(
        [step["grad_norm"] for step in stock], abs=1e-5
    )
    assert losses(ours)[-1] < losses(ours)[0] - 0.01, "nothing was learned"


@METHODS
def test_weights_equal_those_of_torchtunes_recipe(method: str, tiny_model: Path, tmp_path: Path):
    train_stock(recipe(tiny_model, tmp_path / "stock", *UNPACKED, method=method, max_steps=3))
    train(recipe(tiny_model, tmp_path / "ours", *UNPACKED, method=method, max_steps=3))
    stock, ours = final(tmp_path / "stock"), final(tmp_path / "ours")
    assert stock.keys() == ours.keys()
    for name, weight in stock.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5)


@METHODS
def test_packing_and_labelled_logits_learn_the_same(method: str, tiny_model: Path, tmp_path: Path):
    plain = train(recipe(tiny_model, tmp_path / "plain", *UNPACKED, method=method))
    fast = train(recipe(tiny_model, tmp_path / "fast", "packing_window=100", method=method))
    assert losses(fast) == pytest.approx(losses(plain), abs=1e-5)
    same = ("tokens", "tokens_trained", "lr", "epoch")
    assert [[step[key] for key in same] for step in fast] == [
        [step[key] for key in same] for step in plain
    ]


def test_packing_works_with_any_loss_of_torchtunes(tiny_model: Path, tmp_path: Path):
    overrides = ("loss._component_=torch.nn.CrossEntropyLoss", "packing_window=128")
    packed = train(recipe(tiny_model, tmp_path / "packed", *overrides))
    plain = train(recipe(tiny_model, tmp_path / "plain", *UNPACKED))
    assert losses(packed) == pytest.approx(losses(plain), abs=1e-5)


@METHODS
def test_a_signal_saves_and_a_resumed_run_is_the_uninterrupted_one(
    method: str, tiny_model: Path, tmp_path: Path
):
    data = few_rows(tmp_path / "data", train=18)
    given = {"method": method, "epochs": 2, "data": data, "max_steps": None}
    straight = train(recipe(tiny_model, tmp_path / "straight", **given))
    for stop_after in (3, 4, 7):
        with pytest.raises(Interrupted, match=f"after step {stop_after}") as stopped:
            train(
                recipe(tiny_model, tmp_path / "run", resume="auto", **given), stop_after=stop_after
            )
        assert stopped.value.exit_code == 143
    resumed = train(recipe(tiny_model, tmp_path / "run", resume="auto", **given))
    assert losses(resumed) == losses(straight)
    assert [step["lr"] for step in resumed] == [step["lr"] for step in straight]
    weights = [
        load_file(tmp_path / name / "checkpoints" / "epoch_1" / "model-00001-of-00001.safetensors")
        for name in ("straight", "run")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("method", ["dora", "qlora", "qat", "qat-lora"])
def test_every_method_learns_and_goes_on_where_it_was(
    method: str, tiny_model: Path, tmp_path: Path
):
    straight = train(recipe(tiny_model, tmp_path / "straight", method=method))
    assert losses(straight)[-1] < losses(straight)[0] - 0.01
    with pytest.raises(Interrupted):
        train(recipe(tiny_model, tmp_path / "run", method=method), stop_after=4)
    resumed = train(recipe(tiny_model, tmp_path / "run", method=method, resume="auto"))
    assert losses(resumed) == losses(straight)
    assert all(torch.equal(a, b) for a, b in zip(
        final(tmp_path / "run").values(), final(tmp_path / "straight").values(), strict=True
    ))  # fmt: skip


def test_dropout_goes_on_where_it_was(tiny_model: Path, tmp_path: Path):
    dropout = {"lora_dropout": 0.5}
    straight = train(recipe(tiny_model, tmp_path / "straight", **dropout))
    without = train(recipe(tiny_model, tmp_path / "without"))
    assert losses(straight) != losses(without)
    with pytest.raises(Interrupted):
        train(recipe(tiny_model, tmp_path / "run", **dropout), stop_after=3)
    resumed = train(recipe(tiny_model, tmp_path / "run", resume="auto", **dropout))
    assert losses(resumed) == losses(straight)


def test_a_signal_within_a_step_undoes_the_step(tiny_model: Path, tmp_path: Path):
    """Several passes a step, with dropout: the random numbers go back as well."""
    window, dropout = "packing_window=60", {"lora_dropout": 0.5}
    straight = train(recipe(tiny_model, tmp_path / "straight", window, **dropout))
    # a step looks once before it and once after each of its four passes
    for look in (4, 3, 8, 1, 2):
        with pytest.raises(Interrupted):
            train(
                recipe(tiny_model, tmp_path / "run", window, resume="auto", **dropout),
                stop_at_look=look,
            )
    saved = [path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*")]
    assert saved == ["step_1"]
    resumed = train(recipe(tiny_model, tmp_path / "run", window, resume="auto", **dropout))
    assert losses(resumed) == losses(straight)


def test_a_look_at_held_out_rows_that_a_signal_ended_is_made_again(
    tiny_model: Path, tmp_path: Path
):
    data = few_rows(tmp_path / "data", train=24, held_out=40)
    given = {"data": data, "eval_every": 1, "max_steps": 3, "early_stop": 2}
    straight = train(recipe(tiny_model, tmp_path / "straight", **given))
    config = recipe(tiny_model, tmp_path / "run", **given)
    # two looks in the step, then one before each sixteen rows
    with pytest.raises(Interrupted, match="after step 1"):
        train(config, stop_at_look=4)
    assert metrics(config) == []
    assert (tmp_path / "run" / "checkpoints" / "step_1").is_dir()
    resumed = train(recipe(tiny_model, tmp_path / "run", resume="auto", **given))
    for name in ("step", "loss", "validation_loss"):
        assert [step[name] for step in resumed] == [step[name] for step in straight]


def test_the_last_step_is_looked_at_and_the_best_is_handed_over(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = few_rows(tmp_path / "data", train=40, held_out=8)
    output = tmp_path / "run"
    steps = train(
        recipe(tiny_model, output, "+optimizer.maximize=true", lr=3e-2,
               data=data, eval_every=2, max_steps=5)
    )  # fmt: skip
    looks = {step["step"]: step.get("validation_loss") for step in steps}
    assert [step for step, loss in looks.items() if loss] == [2, 4, 5]
    assert "the model is that of step 2" in capsys.readouterr().out
    saved = load_file(output / "checkpoints" / "step_2" / "state.safetensors")
    adapter = torch.load(output / "checkpoints" / "epoch_0" / "adapter_model.pt")
    assert all(torch.equal(adapter[name], saved[f"weight/{name}"]) for name in adapter)


def test_checkpoints_of_another_course_do_not_stay(tiny_model: Path, tmp_path: Path):
    output = tmp_path / "run"
    train(recipe(tiny_model, output, save_every=2, keep=9))
    at_two = str(output / "checkpoints" / "step_2")
    config = recipe(tiny_model, output, save_every=3, keep=9, resume=at_two, lr=1e-4)
    with pytest.raises(Interrupted):
        train(config, stop_after=3)
    kept = {path.name for path in (output / "checkpoints").glob("step_*")}
    assert kept == {"step_2", "step_3"}
    elsewhere = recipe(tiny_model, tmp_path / "other", resume=str(output), max_steps=3)
    assert train(elsewhere) == []
    assert (tmp_path / "other" / "checkpoints" / "step_3").is_dir()


def test_a_broken_checkpoint_is_passed_over(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "run"
    straight = train(recipe(tiny_model, output, save_every=2, keep=3))
    newest = output / "checkpoints" / "step_6" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = train(recipe(tiny_model, output, resume="auto", save_every=2, keep=3))
    said = capsys.readouterr().out
    assert "passed over" in said
    assert "resumed after step 4" in said
    assert losses(resumed) == losses(straight)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(
    tiny_model: Path, tmp_path: Path
):
    logs = tmp_path / "run" / "logs"
    logs.mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text("")
    (logs / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n{"step": 2, "lo')
    steps = train(recipe(tiny_model, tmp_path / "run", resume="auto", max_steps=2))
    assert [step["step"] for step in steps] == [1, 2]
    assert steps[0]["loss"] != 9.0


def test_another_run_cannot_be_resumed(tiny_model: Path, tmp_path: Path):
    train(recipe(tiny_model, tmp_path / "run", max_steps=1))
    with pytest.raises(SettingsError, match="seed 42, this one has 7"):
        train(recipe(tiny_model, tmp_path / "run", resume="auto", seed=7))
    for other in ({"method": "full"}, {"method": "qlora"}, {"lora_rank": 8}):
        with pytest.raises(SettingsError, match="method lora of rank 16"):
            train(recipe(tiny_model, tmp_path / "run", resume="auto", **other))


def test_only_the_last_checkpoints_and_the_best_are_kept(tiny_model: Path, tmp_path: Path):
    data = few_rows(tmp_path / "data", train=40, held_out=8)
    # away from the lowest loss: the first look is the best
    steps = train(
        recipe(tiny_model, tmp_path / "run", "+optimizer.maximize=true", lr=3e-2,
               data=data, eval_every=1, save_every=1, keep=2)
    )  # fmt: skip
    looks = [step["validation_loss"] for step in steps]
    best = 1 + looks.index(min(looks))
    kept = {int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").glob("step_*")}
    assert kept == {5, 6, best}
    assert best < 5, looks


def test_training_stops_when_validation_no_longer_gains(tiny_model: Path, tmp_path: Path):
    data = few_rows(tmp_path / "data", train=40, held_out=8)
    output = tmp_path / "run"
    steps = train(
        recipe(tiny_model, output, "+optimizer.maximize=true", lr=3e-2,
               data=data, eval_every=1, early_stop=2, max_steps=10)
    )  # fmt: skip
    looks = [step["validation_loss"] for step in steps]
    best = 1 + looks.index(min(looks))
    assert len(steps) == best + 2 < 10
    saved = load_file(output / "checkpoints" / f"step_{best}" / "state.safetensors")
    adapter = torch.load(output / "checkpoints" / "epoch_0" / "adapter_model.pt")
    assert adapter
    assert all(torch.equal(adapter[name], saved[f"weight/{name}"]) for name in adapter)


def test_the_best_of_another_folder_is_not_looked_for(tiny_model: Path, tmp_path: Path):
    data = few_rows(tmp_path / "data", train=40, held_out=8)
    rises = {"data": data, "eval_every": 1, "save_every": 1, "keep": 9, "max_steps": 4, "lr": 3e-2}
    train(recipe(tiny_model, tmp_path / "one", "+optimizer.maximize=true", **rises))
    steps = train(
        recipe(tiny_model, tmp_path / "two", "+optimizer.maximize=true", early_stop=2,
               resume=str(tmp_path / "one" / "checkpoints" / "step_2"), **rises)
    )  # fmt: skip
    assert [step["step"] for step in steps] == [3, 4]
    assert (tmp_path / "two" / "checkpoints" / "step_3").is_dir()


def test_a_broken_best_is_no_model(tiny_model: Path, tmp_path: Path):
    data = few_rows(tmp_path / "data", train=40, held_out=8)
    rises = {"data": data, "eval_every": 1, "early_stop": 2, "max_steps": 6, "lr": 3e-2}
    for harm in (False, True):
        config = recipe(
            tiny_model, tmp_path / "run", "+optimizer.maximize=true", resume="auto", **rises
        )
        if harm:
            best = min((tmp_path / "run" / "checkpoints").glob("step_*"))
            (best / "state.json").unlink()
            with pytest.raises(TrainingError, match="best checkpoint is not whole"):
                train(config)
        else:
            train(config)


def test_validation_loss_is_the_mean_over_all_labels(tiny_model: Path, tmp_path: Path):
    """What the last step's model has on the held-out rows, computed the long way."""
    from transformers import AutoModelForCausalLM

    data = few_rows(tmp_path / "data", train=40, held_out=70)
    config = recipe(tiny_model, tmp_path / "run", data=data, eval_every=3, method="full")
    found = train(config)[-1]["validation_loss"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoints" / "epoch_0")
    from torchtune.config import instantiate

    rows = instantiate(config.validation.dataset, instantiate(config.tokenizer))
    total = count = 0
    with torch.no_grad():
        for row in (rows[index] for index in range(len(rows))):
            labels = torch.tensor(row["labels"])[1:]
            logits = model(torch.tensor([row["tokens"]])).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            count += (labels != -100).sum().item()
    assert found == pytest.approx(total / count, abs=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_rows(
    tiny_model: Path, tmp_path: Path
):
    config = recipe(
        tiny_model, tmp_path / "run", "lr_scheduler.num_warmup_steps=0", "clip_grad_norm=null",
        "optimizer._component_=torch.optim.SGD", "optimizer.fused=false", lr=1e30,
    )  # fmt: skip
    with pytest.raises(TrainingError, match=r"at step [2-6]") as failed:
        train(config)
    assert failed.value.exit_code == 7
    (report,) = (tmp_path / "run" / "logs").glob("not-finite-step-*.json")
    found = json.loads(report.read_text())
    assert not math.isfinite(float(found["loss"]))
    assert len(found["rows"]) == 4
    assert all(1 <= row <= 1000 for row in found["rows"])
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    start = 4 * (found["step"] - 1)
    assert found["rows"] == sorted(int(row) + 1 for row in order[start : start + 4])


@pytest.mark.parametrize(
    "key", ["optimizer_in_bwd", "resume_from_checkpoint", "dataset.packed", "profiler.enabled"]
)
def test_keys_that_would_do_nothing_are_refused(tiny_model: Path, tmp_path: Path, key: str):
    with pytest.raises(SettingsError, match=key):
        train(recipe(tiny_model, tmp_path / "run", f"+{key}=true"))


def test_frozen_weights_in_fp32_are_saved_as_they_were_and_learn_as_all_in_fp32(
    tiny_model: Path, tmp_path: Path
):
    wide = train(recipe(tiny_model, tmp_path / "wide", "frozen_dtype=fp32", dtype="bf16"))
    exact = train(recipe(tiny_model, tmp_path / "exact", dtype="fp32"))
    # what is left is the adapter's own format, in which it is trained
    assert losses(wide) == pytest.approx(losses(exact), abs=0.01)
    before, after = load_file(tiny_model / "model.safetensors"), final(tmp_path / "wide")
    assert {weight.dtype for weight in after.values()} == {torch.bfloat16}
    assert torch.equal(
        after["model.embed_tokens.weight"], before["model.embed_tokens.weight"].bfloat16()
    )
    name = "model.layers.0.mlp.down_proj.weight"
    assert not torch.equal(after[name], before[name].bfloat16())
    key = ("frozen_dtype=fp32",)
    with pytest.raises(Interrupted):
        train(recipe(tiny_model, tmp_path / "run", *key, dtype="bf16"), stop_after=3)
    resumed = train(recipe(tiny_model, tmp_path / "run", *key, dtype="bf16", resume="auto"))
    assert losses(resumed) == losses(wide)


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ((), {"method": "full"}),
        ((), {"method": "dora"}),
        ((), {"method": "qlora"}),
        ((), {"method": "qat-lora"}),
        ((), {"lora_dropout": 0.1}),
        (("fused_layers=false",), {}),
    ],
)
def test_frozen_weights_in_another_format_are_for_plain_lora(
    overrides: tuple[str, ...], settings: dict[str, Any], tiny_model: Path, tmp_path: Path
):
    asked = ("frozen_dtype=fp32", *overrides)
    with pytest.raises(SettingsError, match="frozen_dtype is for LoRA without dropout"):
        train(recipe(tiny_model, tmp_path / "run", *asked, dtype="bf16", **settings))


def test_frozen_weights_are_not_put_into_a_narrower_format(tiny_model: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="fp32 or the run's own format, and not bf16"):
        train(recipe(tiny_model, tmp_path / "run", "frozen_dtype=bf16"))


def test_the_runs_own_format_is_no_other_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Weights in NF4 say that they are in bf16, and converting them would unpack them."""
    given: dict[str, Any] = {"method": "qlora", "dtype": "bf16"}
    plain = train(recipe(tiny_model, tmp_path / "plain", **given))
    # there is nothing to convert
    monkeypatch.delattr("entrypoint.tune.recipe.convert_frozen")
    asked = train(recipe(tiny_model, tmp_path / "run", "frozen_dtype=bf16", **given))
    assert losses(asked) == losses(plain)


def test_offloading_needs_a_gpu(tiny_model: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="needs a GPU"):
        train(recipe(tiny_model, tmp_path / "run", "enable_activation_offloading=true"))


@pytest.mark.parametrize(
    ("method", "dtype"), [("lora", "fp32"), ("full", "fp32"), ("lora", "bf16"), ("full", "bf16")]
)
def test_activation_checkpointing_changes_nothing(
    method: str, dtype: str, tiny_model: Path, tmp_path: Path
):
    given = {"method": method, "dtype": dtype}
    plain = train(recipe(tiny_model, tmp_path / "plain", **given))
    key = "enable_activation_checkpointing=true"
    with pytest.raises(Interrupted):
        train(recipe(tiny_model, tmp_path / "run", key, **given), stop_after=3)
    saving = train(recipe(tiny_model, tmp_path / "run", key, **given, resume="auto"))
    assert losses(saving) == pytest.approx(losses(plain), abs=1e-6)
