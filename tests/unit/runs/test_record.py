"""entrypoint.runs.record, pair and table, by `train runs`."""

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.cli import run
from entrypoint.errors import ExitCode
from entrypoint.runs.record import below, read, weights_hash
from tests.reports import write_run


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two runs that have ended, and one that was killed."""
    for name, hour in (("first", "08"), ("second", "09"), ("killed", "10")):
        folder = write_run(tmp_path / "outputs" / name)
        change(folder.manifest, started=f"2026-11-25T{hour}:00:00+00:00")
        evaluation = {"tuned": {"bookings/exact_match": 0.9, "bookings/loss": 0.1}}
        loss = {"first": 2.0, "last": 0.4}
        change(folder.result, steps=60, loss=loss, evaluation=evaluation)
    folder.result.unlink()
    # what looks like a run within a run is none
    inner = tmp_path / "outputs" / "first" / "checkpoints" / "step_1"
    inner.mkdir(parents=True)
    (inner / "manifest.json").write_text("{}")
    (inner / "recipe.yaml").write_text("{}")
    return tmp_path / "outputs"


def test_runs_are_listed_with_the_oldest_first(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["runs", "--outputs", str(outputs)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "when", "what", "model", "steps", "loss", "eval", "status"]
    assert [row.split()[0] for row in rows] == ["first", "second", "killed"]
    assert "sft, lora" in rows[0]
    assert "tuned exact_match 90.0%" in rows[0]
    assert [row.split()[-1] for row in rows] == ["finished", "finished", "interrupted"]
    assert all(len(row) <= 100 for row in rows)


def test_the_list_is_json_for_programs(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["runs", "--outputs", str(outputs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in found] == ["finished", "finished", "interrupted"]
    assert found[0].keys() == {
        "name", "folder", "started", "objective", "model", "method", "steps", "loss", "evaluation",
        "status", "exit_code", "error",
    }  # fmt: skip
    assert found[0]["evaluation"] == {
        "label": "tuned", "score": "bookings/exact_match", "value": 0.9
    }  # fmt: skip
    assert found[2]["steps"] == 60, "of a run without a result the metrics are read"


def test_a_run_that_cannot_be_read_does_not_hide_the_others(
    outputs: Path, capsys: pytest.CaptureFixture[str]
):
    (outputs / "second" / "manifest.json").write_text("{")
    assert [one.folder.root.name for one in below(outputs)] == ["first", "killed"]
    assert "second is left out" in capsys.readouterr().err


def test_two_runs_are_compared_by_what_they_were_made_from_and_came_to(
    outputs: Path, capsys: pytest.CaptureFixture[str]
):
    second = outputs / "second"
    manifest = json.loads((second / "manifest.json").read_text())
    manifest["settings"]["lr"] = 0.5
    manifest["versions"]["torch"] = "2.8.0"
    (second / "manifest.json").write_text(json.dumps(manifest))
    for name, weights in (("first", b"a"), ("second", b"b")):
        (outputs / name / "final").mkdir()
        (outputs / name / "final" / "model.safetensors").write_bytes(weights)
    lines = (second / "logs" / "metrics.jsonl").read_text().splitlines()
    lines[9] = json.dumps(json.loads(lines[9]) | {"loss": 9.0})
    (second / "logs" / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    pair = [str(outputs / "first"), str(second)]
    assert run(["runs", *pair, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    apart = {(one["part"], one["what"]): (one["first"], one["second"])
             for one in found["differences"]}  # fmt: skip
    assert apart[("settings", "lr")] == (2e-4, 0.5)
    assert apart[("versions", "torch")] == ("2.13.0", "2.8.0")
    assert found["figures"]["bookings/exact_match, tuned"] == [0.9, 0.9]
    assert found["losses"]["since"] == 10
    assert found["losses"]["steps"] == 60
    assert found["same_weights"] == {"final": False}

    assert run(["runs", *pair]) == 0
    text = capsys.readouterr().out
    assert "versions: torch" in text
    assert "losses: differ from step 10 of 60 on" in text
    assert "weights in final/: not the same" in text


@pytest.mark.parametrize("arguments", [["nowhere", "either"], ["--outputs", "nowhere"]])
def test_3_what_is_not_there(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(["runs", *arguments]) == ExitCode.SETTINGS
    assert "nowhere" in capsys.readouterr().err


def test_2_one_run_cannot_be_compared(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["runs", str(outputs / "first")]) == ExitCode.USAGE
    assert "two runs" in capsys.readouterr().err


def test_the_hash_of_weights_is_of_names_and_bytes(tmp_path: Path):
    assert weights_hash(tmp_path) is None
    (tmp_path / "a.safetensors").write_bytes(b"x")
    one = weights_hash(tmp_path)
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    assert weights_hash(tmp_path) not in (one, None)


def test_a_run_says_why_it_has_failed(outputs: Path, capsys: pytest.CaptureFixture[str]):
    state = {"version": 1, "status": "failed", "exit_code": 7, "error": "the loss is nan\nmore"}
    (outputs / "killed" / "status.json").write_text(json.dumps(state))
    assert read(outputs / "killed").state["exit_code"] == 7
    assert run(["runs", "--outputs", str(outputs)]) == 0
    assert "killed: the loss is nan\n" in capsys.readouterr().out
