"""`train dpo` and `train kd` from end to end, on tiny models."""

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.data.source import EMBEDDED_PAIRS
from tests.e2e.conftest import NAME, WEIGHTS, Launcher
from tests.e2e.starting import Train
from tests.e2e.test_loop import steps_of
from tests.e2e.test_sft import CANARIES
from tests.e2e.worlds import in_two_processes
from tests.hub_server import HubServer, Repo
from tests.recipes import few_rows, losses, recipe
from tests.recipes import train as train_here
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(
        tmp_path_factory.mktemp("models") / "teacher", hidden=128, shards=True, tied=False
    )


@pytest.fixture
def train_with_secrets(train_here: Train, monkeypatch: pytest.MonkeyPatch) -> Train:
    for name, secret in CANARIES.items():
        monkeypatch.setenv(name, secret)
    return train_here


def whole_run(
    train: Train, objective: str, model: Path, output: Path, *more: object
) -> tuple[Any, str]:
    """The manifest of a run that went well, and what was printed."""
    code, said = train(
        objective, "--model", model, "--output", output, "--max-seq-len", 256, "--max-steps", 4,
        "--lr", 3e-3, "--eval-every", 4, *more,
    )  # fmt: skip
    assert code == 0, said
    for path in output.rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in CANARIES.values())
    assert not any(secret in said for secret in CANARIES.values())
    return json.loads((output / "manifest.json").read_text()), said


def agree(output: Path, base: Path) -> None:
    """final/ is the base with adapter/ on it, for transformers and PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        final = AutoModelForCausalLM.from_pretrained(output / "final")(tokens).logits
        before = AutoModelForCausalLM.from_pretrained(base)
        bare = before(tokens).logits
        adapted = PeftModel.from_pretrained(before, output / "adapter")(tokens).logits
    torch.testing.assert_close(adapted, final, rtol=0, atol=1e-3)
    assert (final - bare).abs().max() > 1e-3, "nothing was learned"


def test_dpo_learns_from_the_built_in_pairs(
    tiny_model: Path, tmp_path: Path, train_with_secrets: Train
):
    output = tmp_path / "run"
    manifest, said = whole_run(
        train_with_secrets, "dpo", tiny_model, output, "--precompute-reference", "--beta", 0.2,
        "--dtype", "fp32", "--then", "quantize",
    )  # fmt: skip
    assert "DPO, sigmoid, beta 0.2; reference: computed once, before training" in said
    assert manifest["settings"]["beta"] == 0.2
    assert manifest["teacher"] is None
    assert manifest["data"]["train"]["rows"] == 1000
    steps = steps_of(output)
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert steps[-1]["rewards/margins"] > 0
    assert {"rewards/accuracies", "log_probs/chosen"} <= steps[0].keys()
    assert 0 <= steps[-1]["validation_rewards/accuracies"] <= 1
    assert len(list((output / "reference").glob("*.safetensors"))) == 1
    assert (output / "quantized" / "8da4w" / "config.json").is_file()
    agree(output, tiny_model)


def test_kd_learns_from_a_larger_teacher(
    tiny_model: Path, teacher: Path, tmp_path: Path, train_with_secrets: Train
):
    output = tmp_path / "run"
    manifest, said = whole_run(
        train_with_secrets, "kd", tiny_model, output, "--teacher", teacher, "--temperature", 2,
        "--alpha", 0.7, "--dtype", "fp32",
    )  # fmt: skip
    assert "0.7 x forward KL from the teacher (temperature 2)" in said
    assert manifest["teacher"]["reference"] == str(teacher)
    assert len(manifest["teacher"]["shards"]) == 5
    assert manifest["teacher"]["config_sha256"] != manifest["model"]["config_sha256"]
    for step in steps_of(output):
        parts = step["cross_entropy"], step["kl_divergence"]
        assert step["loss"] == pytest.approx(0.3 * parts[0] + 0.7 * 4 * parts[1], abs=1e-4)
    agree(output, tiny_model)


def test_two_processes_learn_as_one(tiny_model: Path, teacher: Path, tmp_path: Path):
    """Models and the second models are spread; windows are so small that one process has more."""
    pairs = few_rows(tmp_path / "pairs", train=18, held_out=5, source=EMBEDDED_PAIRS)
    rows = few_rows(tmp_path / "rows", train=18, held_out=5)
    cases: dict[str, dict[str, Any]] = {
        "dpo-full": {"objective": "dpo", "method": "full", "data": pairs},
        "dpo-lora": {"objective": "dpo", "method": "lora", "data": pairs},
        "kd-lora": {"objective": "kd", "kl": "reverse", "data": rows, "teacher": str(teacher)},
    }

    def config(name: str, processes: int) -> Any:
        return recipe(
            tiny_model, tmp_path / f"{name}-{processes}", "packing_window=250",
            max_steps=3, eval_every=3, batch_size=6 // processes, **cases[name],
        )  # fmt: skip

    together = in_two_processes(*(config(name, 2) for name in cases))
    for name, two in zip(cases, together, strict=True):
        one = train_here(config(name, 1))
        assert losses(two) == pytest.approx(losses(one), abs=1e-5)
        assert losses(one)[-1] != pytest.approx(losses(one)[0], abs=1e-3), "nothing was learned"
        own = [key for key in one[-1] if "/" in key or "kl" in key or "entropy" in key]
        assert len(own) >= 4
        for key in (*own, "validation_loss", "grad_norm", "tokens_trained"):
            assert two[-1][key] == pytest.approx(one[-1][key], abs=1e-4)


def test_a_teacher_of_the_hub_is_compared_before_it_is_downloaded(
    repo: Repo, server: HubServer, tiny_model: Path, tmp_path: Path
):
    launcher = Launcher(server, tmp_path)
    fits = launcher.train("kd", "--dry-run", "--model", tiny_model, "--teacher", NAME,
                          "--max-seq-len", 128)  # fmt: skip
    out, error = fits.communicate(timeout=120)
    assert fits.returncode == 0, out + error
    assert f"teacher {NAME}" in out
    odd = write_tiny_model(tmp_path / "odd")
    tokens = json.loads((odd / "tokenizer.json").read_text())
    tokens["model"]["vocab"]["odd"] = tokens["model"]["vocab"].pop("Ġpaid", None) or 300
    (odd / "tokenizer.json").write_text(json.dumps(tokens))
    for dry in (("--dry-run",), ()):
        differs = launcher.train("kd", "--model", odd, "--teacher", NAME, *dry)
        out, error = differs.communicate(timeout=120)
        assert differs.returncode == 5, out + error
        assert "do not share a vocabulary" in error
        assert "'odd'" in error
    assert WEIGHTS not in server.downloads()
