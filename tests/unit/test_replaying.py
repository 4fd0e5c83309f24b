"""entrypoint.replaying: the settings that make a recorded run again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.errors import SettingsError
from entrypoint.replaying import settings_of
from entrypoint.runs.record import Run, read
from entrypoint.settings import Settings
from tests.reports import write_run


@pytest.fixture
def recorded(tmp_path: Path):
    """Makes a recorded run of settings, started in `there`."""

    def make(manifest: dict[str, Any] | None = None, **settings: Any) -> Run:
        if not (tmp_path / "run").exists():
            write_run(tmp_path / "run")
        found = read(tmp_path / "run")
        written = json.loads(json.dumps(Settings(**settings).as_dict()))
        return replace(
            found,
            manifest=found.manifest
            | {"settings": written, "directory": str(tmp_path / "there")}
            | (manifest or {}),
        )

    (tmp_path / "there").mkdir()
    return make


def test_settings_come_back_as_they_were_but_for_the_output(recorded, tmp_path: Path):
    given: dict[str, Any] = {
        "lr": 2e-4, "max_steps": 7, "overrides": ("optimizer.weight_decay=0",), "epochs": 2,
        "then": ("quantize", "eval"), "lora_targets": ("attention", "mlp"), "seed": 5,
        "gates": ("exact_match >= base",), "method": "dora",
    }  # fmt: skip
    run = recorded(**given, output=Path("outputs/x"), resume="auto")
    again = settings_of(run, output=tmp_path / "new", dry_run=True)
    # a preset sets nothing that was recorded
    assert set(again.explicit) >= given.keys()
    told: dict[str, Any] = {"dtype": "fp32", "explicit": again.explicit}
    assert again == Settings(**given, **told, output=tmp_path / "new", dry_run=True)


def test_paths_are_those_that_the_run_had(recorded, tmp_path: Path, monkeypatch):
    there = tmp_path / "there"
    (there / "model").mkdir()
    for name in ("rows.jsonl", "mine.yaml.j2"):
        (there / name).write_text("{}")
    (tmp_path / "rows.jsonl").write_text("another")
    monkeypatch.chdir(tmp_path)
    run = recorded(model="model", data="rows.jsonl", recipe=Path("mine.yaml.j2"))
    again = settings_of(run, output=None, dry_run=False)
    assert again.model == str(there / "model")
    assert again.data == str(there / "rows.jsonl")
    assert again.recipe == there / "mine.yaml.j2"
    run = recorded(data="*.jsonl")
    assert settings_of(run, output=None, dry_run=False).data == str(there / "*.jsonl")


def test_what_is_of_the_hub_is_taken_at_its_commit(recorded):
    facts = {"pinned": "acme/tiny@0123abcd"}
    data = {"reference": "acme/rows:en", "revision": "89ef"}
    run = recorded({"model": facts, "data": data}, model="acme/tiny@main", data="acme/rows:en@v1")
    again = settings_of(run, output=None, dry_run=False)
    assert again.model == "acme/tiny@0123abcd"
    assert again.data == "acme/rows:en@89ef"


def test_rows_from_standard_input_are_taken_from_the_cache(recorded, tmp_path: Path):
    run = recorded(data="-")
    again = settings_of(run, output=None, dry_run=False)
    assert again.data == str(tmp_path / "run-data")
    (tmp_path / "run-data" / "dataset.json").unlink()
    with pytest.raises(SettingsError, match="standard input"):
        settings_of(run, output=None, dry_run=False)


def test_settings_of_another_version_are_refused_by_name(recorded):
    run = recorded()
    strange = run.manifest | {"settings": {**run.settings, "warp": 9}}
    with pytest.raises(SettingsError, match="warp"):
        settings_of(replace(run, manifest=strange), output=None, dry_run=False)
    strange = run.manifest | {"settings": {**run.settings, "objective": "dream"}}
    with pytest.raises(SettingsError, match="objective dream"):
        settings_of(replace(run, manifest=strange), output=None, dry_run=False)
