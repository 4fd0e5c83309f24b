"""`train replay`: a run again from its manifest, and what is said of the two."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from entrypoint.cli import run
from entrypoint.errors import ExitCode

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def original(place: Path, tiny_model: Path) -> Path:
    """A run of three steps, with relative paths."""
    shutil.copytree(tiny_model, place / "model")
    row = {"prompt": "Number {}?", "completion": "Yes"}
    lines = (json.dumps({**row, "prompt": f"Number {n}?"}) for n in range(12))
    (place / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("TRAIN_CACHE", str(place / "cache"))
        assert run([
            "sft", "--model", "model", "--data", "rows.jsonl", "--max-seq-len", "128",
            "--output", "outputs/first", "--set", "optimizer.weight_decay=0.1", "--seed", "7",
        ]) == 0  # fmt: skip
    return place / "outputs" / "first"


@pytest.fixture(autouse=True)
def _elsewhere(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAIN_CACHE", str(place / "cache"))


def test_a_replay_gives_the_same_losses_and_weights(
    original: Path, place: Path, capfd: pytest.CaptureFixture[str]
):
    again = place / "outputs" / "again"
    assert run(["replay", str(original), "--output", str(again), "--strict", "--json"]) == 0
    said = capfd.readouterr()
    found = json.loads(said.out)
    assert found["folder"] == str(again)
    assert found["before"] == []
    assert found["after"]["losses"] == {"steps": 3, "largest": 0.0, "since": None}
    assert found["after"]["same_weights"] == {"final": True, "adapter": True}
    assert "losses: the same in all 3 steps" in said.err
    manifest = json.loads((again / "manifest.json").read_text())
    assert manifest["seed"] == 7
    assert run(["runs", "--outputs", str(place / "outputs"), "--json"]) == 0
    listed: list[dict[str, Any]] = json.loads(capfd.readouterr().out)
    assert [(one["name"], one["status"]) for one in listed] == [
        ("first", "finished"), ("again", "finished"),
    ]  # fmt: skip


def test_what_differs_is_said_before_anything_starts(
    original: Path, place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Other rows, another torch, other weights and another template."""
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["versions"]["torch"] = "2.8.0"
    manifest["model"]["sample_sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    recipe = (copy / "recipe.yaml").read_text().replace("weight_decay: 0.1", "weight_decay: 0.2")
    (copy / "recipe.yaml").write_text(recipe)
    rows = place / "rows.jsonl"
    kept = rows.read_text()
    rows.write_text(kept.replace("Yes", "No"))
    try:
        assert run(["replay", str(copy), "--dry-run", "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert run(["replay", str(copy), "--strict"]) == ExitCode.SETTINGS
        said = capfd.readouterr()
    finally:
        rows.write_text(kept)
    apart = {(one["part"], one["what"]) for one in found["before"]}
    assert apart == {
        ("versions", "torch"), ("model", "sample_sha256"), ("data", "train.sha256"),
        ("recipe", "optimizer.weight_decay"),
    }  # fmt: skip
    assert "versions: torch" in said.out
    assert "data, model, recipe differ" in said.err
    assert not (tmp_path / "outputs").exists()
