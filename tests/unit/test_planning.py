"""`train plan`: memory, time and cost, and what fits, from nothing but facts."""

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint import hardware, machines, pipeline, sizing
from entrypoint.cli import run
from entrypoint.errors import DoesNotFitError, SettingsError
from entrypoint.machines import GIB, GPUS, SIZES, named, this_machine
from entrypoint.settings import Settings
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
    written = "".join(json.dumps(step) + "\n" for step in steps)
    # it was killed while it wrote
    (logs / "metrics.jsonl").write_text(written + '{"tokens": 1')
    _, found = asked("--like", str(tmp_path / "run"))
    (machine,) = found["machines"]
    assert machine["seconds"] == pytest.approx(machine["tokens"] / 200, rel=0.01)


def test_an_earlier_run_without_steps_is_refused(tmp_path: Path, capsys: Any):
    (tmp_path / "run").mkdir()
    assert run(["plan", "--like", str(tmp_path / "run")]) == 3
    assert "metrics.jsonl" in capsys.readouterr().err


def test_a_cpu_that_is_slow_in_bf16_has_frozen_weights_in_fp32_when_they_fit(
    asked: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hardware, "is_slow_in_bf16", lambda: True)
    cpu = ("--device", "cpu", "--dtype", "bf16", "--method", "lora")

    def weights(memory: int, *more: str) -> tuple[int, int]:
        monkeypatch.setattr(hardware, "read_memory", lambda: (memory, memory))
        (found,) = asked(*cpu, *more)[1]["machines"]
        return found["memory_bytes"]["weights"], found["memory_bytes"]["total"]

    wide, total = weights(64 * GIB)
    # a plan may be 5 % too low
    assert weights(int(total / 0.95) + 1)[0] == wide
    narrow, _ = weights(int(total / 0.95) - 1)
    assert wide == 2 * narrow
    assert weights(64 * GIB, "--set", "frozen_dtype=bf16")[0] == narrow
    assert weights(64 * GIB, "--lora-dropout", "0.1")[0] == narrow
    assert weights(64 * GIB, "--nproc-per-node", "2")[0] == narrow // 2
    monkeypatch.setattr(hardware, "is_slow_in_bf16", lambda: False)
    assert weights(64 * GIB)[0] == narrow


@pytest.mark.parametrize("fits", [True, False])
def test_a_run_that_is_resumed_goes_on_in_the_format_that_it_began_in(
    fits: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hardware, "is_slow_in_bf16", lambda: True)
    given = Settings(model=str(tiny_model), device="cpu", dtype="bf16", output=tmp_path / "run")

    def prepared(memory: int, **more: Any) -> pipeline.Prepared:
        monkeypatch.setattr(hardware, "read_memory", lambda: (memory, memory))
        return pipeline.prepare(replace(given, fit_check=False, **more), {})

    memory = 64 * GIB if fits else 1
    began = prepared(memory)
    assert began.plan.variables["frozen_dtype"] == ("fp32" if fits else None)
    began.plan.folder.root.mkdir()
    began.plan.folder.recipe.write_text(began.recipe)
    again = prepared(1 if fits else 64 * GIB, resume="auto")
    assert again.plan.variables["frozen_dtype"] == began.plan.variables["frozen_dtype"]
    # cut off by a full disk: as if it had not begun
    began.plan.folder.recipe.write_text("")
    anew = prepared(memory, resume="auto")
    assert anew.plan.variables["frozen_dtype"] == began.plan.variables["frozen_dtype"]


def test_the_first_lines_say_what_the_recipe_says_of_frozen_weights(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def said(*overrides: str, slow: bool = True) -> str:
        monkeypatch.setattr(hardware, "is_slow_in_bf16", lambda: slow)
        given = Settings(model=str(tiny_model), device="cpu", dtype="bf16", overrides=overrides)
        prepared = pipeline.prepare(replace(given, output=tmp_path / "run"), {})
        return pipeline.of_frozen(prepared.estimate)

    wide = " (frozen weights in fp32)"
    assert said() == wide
    assert said("frozen_dtype=bf16") == ""
    assert said(slow=False) == ""
    assert said("frozen_dtype=fp32", slow=False) == wide


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


def test_a_variable_of_another_objective_is_left_alone(asked: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRAIN_BETA", "0.2")
    assert asked("sft")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "batch_size=32"], 3, "the plan says 4"),
        (["--set", "loss=null"], 3, "no loss._component_"),
        (["--set", "optimizer=null"], 3, "no optimizer._component_"),
        (["kd", "--set", "teacher_dtype=fp8"], 3, "no number format fp8"),
        (["--set", "frozen_dtype=fp8"], 3, "no number format fp8"),
        (["--on", ""], 3, "no machine is named"),
        (["--on", "Standard_NC24ads_A100_v4", "--nproc-per-node", "8"], 3, "need as many GPUs"),
        (["--utilization", "0.5", "--tokens-per-second", "9"], 2, "both say how fast"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["plan", *arguments]) == code
    assert words in capsys.readouterr().err


def test_a_teacher_may_be_in_fp16(asked: Any):
    def second(dtype: str) -> int:
        teacher = ("kd", "--teacher", LLAMA_8B, "--set", f"teacher_dtype={dtype}")
        return int(asked(*teacher, "--on", "H100-80GB")[1]["machines"][0]["memory_bytes"]["second"])

    assert second("fp16") == second("bf16") == second("fp32") // 2


def test_of_a_group_those_are_planned_for_that_have_enough_gpus(asked: Any):
    _, found = asked("--on", "azure", "--nproc-per-node", "4")
    assert len(found["machines"]) == sum(size.gpus >= 4 for size in SIZES.values())
    assert {machine["processes_per_node"] for machine in found["machines"]} == {4}


def test_only_what_was_asked_for_by_name_bounds_the_choice(asked: Any):
    def methods(*arguments: str) -> set[str]:
        return {choice["method"] for choice in asked(*arguments)[1]["machines"][0]["fitting"]}

    assert {"lora", "full", "qat"} <= methods("--preset", "balanced")
    assert methods("--preset", "balanced", "--method", "dora") == {"dora"}
    # these have nothing that a rank could be for
    assert {"full", "qat"} & methods("--lora-rank", "8") == set()


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


@pytest.mark.parametrize(
    ("name", "gib", "bf16"),
    [
        ("NVIDIA A100-SXM4-80GB", 79.2, 312),
        ("NVIDIA H100 80GB HBM3", 79.6, 989),
        ("NVIDIA H100 NVL", 93.6, 835),
        ("NVIDIA GeForce RTX 3090", 23.7, 71),
        ("NVIDIA GeForce RTX 4090", 23.5, 165),
        ("NVIDIA RTX A6000", 47.5, 154.8),
        ("NVIDIA RTX 6000 Ada Generation", 47.5, 0),
        ("Quadro RTX 6000", 23.6, 0),
    ],
)
def test_this_machines_gpu_is_known_by_its_name(
    name: str, gib: float, bf16: float, monkeypatch: pytest.MonkeyPatch
):
    gpu = hardware.Gpu(name=name, memory=int(gib * GIB), capability=(8, 0))
    driver = hardware.Driver(cuda=(12, 8), gpus=(gpu, gpu))
    monkeypatch.setattr(machines.hardware, "read_driver", lambda: driver)
    world = World(device="cuda", devices=2, dtype="bf16", cores=8, processes=2)
    found = this_machine(world)
    assert found.peaks.get("bf16", 0) == bf16 * 1e12
    assert 0.95 < (found.memory or 0) / gpu.memory < 1


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

    settings = Settings(model=LLAMA_8B, method="full")
    found = planning.find(settings, {"HOME": "/nowhere"})
    (machine,) = named("A10")
    plan = planning.plan_on(machine, settings, found, 1)
    made = planning.answer(plan, machine, sizing.look(plan), planning.Question(), None, "").estimate
    with pytest.raises(DoesNotFitError) as refused:
        sizing.check_fits(made)
    assert "--method qlora" in str(refused.value)
    sizing.check_fits(replace(made, there=None))
