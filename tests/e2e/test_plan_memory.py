"""Planned memory against the measured peak of real runs on a CPU, and what presets say of it."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from entrypoint import hardware, inputs, pipeline, presets, templates
from entrypoint.cli import run
from entrypoint.settings import Settings
from scripts import bench_plan

pytestmark = pytest.mark.e2e

PRESETS = sorted((templates.folder() / presets.FOLDER).glob("*"))
LARGE = "meta-llama/Llama-3.1-8B"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench_plan.write_small(tmp_path_factory.mktemp("models") / "small")


def test_eight_settings_are_held():
    assert len(bench_plan.QUICK) == 8


@pytest.mark.parametrize("name", bench_plan.QUICK)
def test_planned_memory_is_near_to_the_measured_peak(name: str, small: Path, tmp_path: Path):
    found = bench_plan.measured(bench_plan.CASES[name], small, tmp_path / "run")
    assert found.held, found


@pytest.fixture(scope="module")
def _embedded() -> None:
    """With its tokenizer in the cache, rows are counted and not guessed."""
    settings = Settings(device="cpu", dtype="fp32")
    inputs.ensure_present(pipeline.prepare(settings, os.environ).plan.model, None, os.environ)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["plan", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["machines"][0]
    return found


@pytest.mark.usefixtures("_embedded")
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_header_of_a_preset_has_the_figures_of_its_plan(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # figures are those of one machine, wherever this runs
    monkeypatch.setattr(hardware, "torch_build", lambda: "cpu")
    monkeypatch.setattr(hardware, "is_slow_in_bf16", lambda: False)
    objective, name = path.stem.split("-", 1)
    preset = (objective, "--preset", name)
    teacher = ("--teacher", LARGE) if objective == "kd" else ()
    small = planned(capsys, *preset, "--device", "cpu", "--dtype", "bf16")
    large = planned(capsys, *preset, "--model", LARGE, *teacher, "--on", "A100-80GB")
    memory = [one["memory_bytes"]["total"] / 2**30 for one in (small, large)]
    minutes = large["seconds"] / large["tokens"] * 1e6 / 60
    header = (
        f"# Planned    SmolLM2-135M in bf16 on a CPU {memory[0]:.1f} GiB; an 8B model on an "
        f"A100-80GB {memory[1]:.0f} GiB\n#            and {minutes:.0f} min for a million tokens "
        f"(`train plan {objective} --preset {name}`)\n"
    )
    text = path.read_text("utf-8")
    if os.environ.get("TUNECASK_UPDATE_GOLDEN"):
        text = re.sub(r"# Planned .*\n#  .*\n", header, text)
        path.write_text(text, "utf-8")
    assert header in text, f"{path.name}: run this test with TUNECASK_UPDATE_GOLDEN=1"
