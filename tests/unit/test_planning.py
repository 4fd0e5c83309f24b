"""`train plan`: memory, time and cost, and what fits, from nothing but facts."""

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint import hardware, machines, sizing
from entrypoint.cli import run
from entrypoint.errors import DoesNotFitError, SettingsError
from entrypoint.machines import GPUS, SIZES, named, this_machine
from entrypoint.topology import World

LLAMA_70B = "meta-llama/Llama-3.1-70B"
LLAMA_8B = "meta-llama/Llama-3.1-8B"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `train plan --json`: exit code and document."""

    def plan(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = run(["plan", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return plan


def test_a_70b_plan_takes_seconds_a_gigabyte_and_no_torch():
    code = (
        "import resource, sys; from entrypoint.cli import run\n"
        f"code = run(['plan', '--model', '{LLAMA_70B}', '--on', 'A100-80GB', '--price', '3'])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "status = open('/proc/self/status').read() if sys.platform == 'linux' else ''\n"
        "peak = [line for line in status.splitlines() if line.startswith('VmHWM')]\n"
        "assert not peak or int(peak[0].split()[1]) < 1_000_000, peak\n"
        "assert used.ru_utime + used.ru_stime < 5, used\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    ended = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "--method qlora" in ended.stdout
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0


def test_6_when_nothing_fits(asked: Any, capsys: pytest.CaptureFixture[str]):
    code, found = asked("--model", LLAMA_70B, "--method", "full", "--on", "T4,A100-80GB")
    assert code == 6
    assert [machine["fits"] for machine in found["machines"]] == [False, False]
    assert all(not machine["fitting"] for machine in found["machines"])


def test_what_fits_is_listed_by_cost_with_the_options_that_ask_for_it(asked: Any):
    code, found = asked("--model", LLAMA_8B, "--method", "full", "--on", "A100-80GB")
    assert code == 0  # 16 + 16 + 32 GB, and little else
    code, found = asked("--model", LLAMA_8B, "--on", "A10", "--price", "2.5")
    assert code == 0
    (machine,) = found["machines"]
    costs = [choice["cost"] for choice in machine["fitting"]]
    assert costs == sorted(costs)
    assert "full" not in [choice["method"] for choice in machine["fitting"]]
    for choice in machine["fitting"]:
        assert choice["memory_bytes"]["total"] <= machine["memory_there_bytes"]
        assert choice["options"][:2] == ["--method", choice["method"]]
    assert machine["cost"] == pytest.approx(2.5 * machine["seconds"] / 3600)


def test_a_given_speed_makes_time_of_tokens(asked: Any):
    _, found = asked("--tokens-per-second", "100", "--price", "36")
    (machine,) = found["machines"]
    assert machine["seconds"] == pytest.approx(machine["tokens"] / 100, rel=0.01)
    assert machine["cost"] == pytest.approx(machine["seconds"] / 100)
    assert machine["speed_known_by"] == "the given tokens/s"


def test_the_speed_of_an_earlier_run_is_taken(asked: Any, tmp_path: Path):
    logs = tmp_path / "run" / "logs"
    logs.mkdir(parents=True)
    steps = [{"tokens": 100, "step_seconds": 10.0}] * 2 + [{"tokens": 100, "step_seconds": 0.5}] * 2
    (logs / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    _, found = asked("--like", str(tmp_path / "run"))
    (machine,) = found["machines"]
    assert machine["seconds"] == pytest.approx(machine["tokens"] / 200, rel=0.01)


def test_an_earlier_run_without_steps_is_refused(tmp_path: Path, capsys: Any):
    (tmp_path / "run").mkdir()
    assert run(["plan", "--like", str(tmp_path / "run")]) == 3
    assert "metrics.jsonl" in capsys.readouterr().err


def test_more_gpus_divide_weights_and_steps(asked: Any):
    one = ["--model", LLAMA_8B, "--method", "full", "--on", "H100-80GB"]
    _, alone = asked(*one)
    _, four = asked(*one, "--nproc-per-node", "4", "--nodes", "2")
    alone, four = alone["machines"][0], four["machines"][0]
    assert four["processes_per_node"] * four["nodes"] == 8
    assert four["memory_bytes"]["weights"] * 8 == pytest.approx(alone["memory_bytes"]["weights"])
    assert four["memory_bytes"]["gather"] > 0


def test_an_option_of_another_objective_is_refused(capsys: pytest.CaptureFixture[str]):
    assert run(["plan", "sft", "--beta", "0.2"]) == 2
    assert "--beta means nothing to sft" in capsys.readouterr().err


@pytest.mark.parametrize("objective", ["sft", "dpo", "kd"])
def test_every_objective_and_preset_has_a_plan(objective: str, asked: Any):
    code, found = asked(objective, "--preset", "balanced")
    assert code == 0
    assert found["preset"] == "balanced"
    assert found["machines"][0]["memory_bytes"]["total"] > 10**8


def test_machines_are_named_as_gpus_sizes_and_groups():
    assert named("a100-80gb")[0].devices == 1
    assert named("A100-80GB", 4)[0].devices == 4
    assert named("standard_nc48ads_a100_v4")[0].devices == 2
    assert len(named("gpus")) == len(GPUS)
    assert len(named("azure")) == len(SIZES)
    assert not named("T4")[0].bf16
    with pytest.raises(SettingsError, match="neither a GPU nor a VM size"):
        named("A1000")
    with pytest.raises(SettingsError, match="has no GPU"):
        named("Standard_D4s_v5")


def test_this_machines_gpu_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch):
    gpu = hardware.Gpu(name="NVIDIA A100-SXM4-80GB", memory=85_000_000_000, capability=(8, 0))
    driver = hardware.Driver(cuda=(12, 8), gpus=(gpu, gpu))
    monkeypatch.setattr(machines.hardware, "read_driver", lambda: driver)
    world = World(device="cuda", devices=2, dtype="bf16", cores=8, processes=2)
    found = this_machine(world)
    assert found.peaks["bf16"] == 312e12
    assert 80e9 < (found.memory or 0) < 85e9


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines.hardware, "read_memory", lambda: (2 << 30, 40_000_000))


@pytest.mark.usefixtures("small_machine")
def test_6_a_run_that_cannot_fit_is_refused_before_anything_starts(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["sft", "--model", str(tiny_model), "--max-seq-len", "256", "--method", "full"]
    arguments += ["--output", str(tmp_path / "out"), "--dry-run"]
    assert run(arguments) == 6
    error = capsys.readouterr().err
    for words in ("of memory", "there are 38 MiB", "--no-fit-check", "train plan"):
        assert words in error
    assert run([*arguments, "--no-fit-check"]) == 0
    assert "about" in capsys.readouterr().out


def test_the_refusal_names_what_would_fit(monkeypatch: pytest.MonkeyPatch, asked: Any):
    from entrypoint import planning
    from entrypoint.settings import Settings

    found = planning.find(Settings(model=LLAMA_8B, method="full"), {"HOME": "/nowhere"})
    (machine,) = named("A10")
    plan = planning.plan_on(machine, found, 1)
    made = planning.answer(plan, machine, sizing.look(plan), planning.Question(), None, "").asked
    with pytest.raises(DoesNotFitError) as refused:
        sizing.check_fits(made)
    assert "--method qlora" in str(refused.value)
    sizing.check_fits(replace(made, there=None))
