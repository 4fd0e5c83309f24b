"""The training loop in processes of its own: killed, stopped, resumed, and in worlds of two."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.worlds import ONE_THREAD, assert_close, in_two_processes
from tests.recipes import few_rows, losses, recipe, train

pytestmark = pytest.mark.e2e

STEPS = 12


def arguments(model: Path, output: Path, *more: object) -> tuple[str, ...]:
    given = (
        "sft", "--model", model, "--output", output, "--max-seq-len", 256, "--max-steps", STEPS,
        "--save-every", 1, "--lr", 3e-3, "--resume", "auto",
    )  # fmt: skip
    return (sys.executable, "-m", "entrypoint", *map(str, (*given, *more)))


def steps_of(output: Path) -> list[dict[str, Any]]:
    lines = (output / "logs" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def straight(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbs."""
    output = tmp_path_factory.mktemp("loop") / "straight"
    ended = subprocess.run(arguments(tiny_model, output), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return output


def test_killed_it_ends_as_if_it_had_not_been(straight: Path, tiny_model: Path, tmp_path: Path):
    """Both processes, once; test_chaos.py has all the moments."""
    output = tmp_path / "run"
    metrics = output / "logs" / "metrics.jsonl"
    process = subprocess.Popen(
        arguments(tiny_model, output), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.005)
    kill_all(process.pid)
    process.wait()
    assert not (output / "result.json").exists()
    ended = subprocess.run(arguments(tiny_model, output), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert losses(steps_of(output)) == losses(steps_of(straight))
    assert final_weights(output) == final_weights(straight)
    assert not list((output / "checkpoints").glob(".*"))


def kill_all(parent: int) -> None:
    """SIGKILL to `train` and to the recipe, which has a session of its own."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in (parent, *map(int, children)):
        os.kill(pid, signal.SIGKILL)


def final_weights(output: Path) -> bytes:
    return (output / "final" / "model-00001-of-00001.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_checkpoint_that_the_same_command_goes_on_from(
    straight: Path, tiny_model: Path, tmp_path: Path, number: signal.Signals, code: int
):
    output = tmp_path / "run"
    saves_late = arguments(tiny_model, output, "--save-every", 100)
    process = subprocess.Popen(
        saves_late, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = output / "logs" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert process.returncode == code, out + error
    assert (out + error).count("Error:") == 1
    assert "a checkpoint is saved" in error
    assert "--resume auto" in error
    assert "Traceback" not in error
    done = len(steps_of(output))
    assert done < STEPS
    assert [path.name for path in (output / "checkpoints").glob("step_*")] == [f"step_{done}"]
    ended = subprocess.run(saves_late, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"resumed after step {done}" in ended.stdout
    assert losses(steps_of(output)) == losses(steps_of(straight))


def test_a_run_that_has_ended_is_not_resumed(straight: Path, tiny_model: Path):
    ended = subprocess.run(arguments(tiny_model, straight), capture_output=True, text=True)
    assert ended.returncode == 3
    assert "has ended" in ended.stderr


def test_7_a_loss_that_is_not_finite_ends_the_run(tiny_model: Path, tmp_path: Path):
    ended = subprocess.run(
        arguments(
            tiny_model, tmp_path / "run", "--lr", 1e30, "--set", "clip_grad_norm=null", "--set",
            "optimizer={_component_: torch.optim.SGD, lr: 1e30}",
        ),
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert ended.returncode == 7, ended.stdout + ended.stderr
    assert "the loss is" in ended.stdout
    assert list((tmp_path / "run" / "logs").glob("not-finite-step-*.json"))


def tune_command(config: Any, folder: Path, processes: int) -> tuple[str, ...]:
    """`tune run` of our recipe in a world of that many processes on this machine."""
    from omegaconf import OmegaConf

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(OmegaConf.to_yaml(config))
    flags = ("--nproc_per_node", str(processes)) if processes > 1 else ()
    return (
        sys.executable, "-m", "entrypoint.tune", "run", *flags, "entrypoint.tune.recipe",
        "--config", str(path),
    )  # fmt: skip


def test_a_signal_stops_all_processes_after_the_same_step(tiny_model: Path, tmp_path: Path):
    config = recipe(tiny_model, tmp_path, max_steps=250)
    process = subprocess.Popen(
        tune_command(config, tmp_path, 2),
        env=ONE_THREAD,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = tmp_path / "logs" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) != 0
    done = len(steps_of(tmp_path))
    assert done < 125
    assert [path.name for path in (tmp_path / "checkpoints").glob("step_*")] == [f"step_{done}"]


def test_two_processes_learn_as_one_and_can_take_over_from_it(tiny_model: Path, tmp_path: Path):
    data = few_rows(tmp_path / "data", train=60, held_out=10)

    def config(name: str, method: str, processes: int, **more: Any) -> Any:
        # a small window: the processes do not all have the same number of passes
        return recipe(
            tiny_model, tmp_path / f"{method}-{name}", "packing_window=130", method=method,
            data=data, eval_every=4, save_every=2, keep=9,
            batch_size=6 // processes, **more,
        )  # fmt: skip

    def after_2(name: str, method: str) -> str:
        return str(tmp_path / f"{method}-{name}" / "checkpoints" / "step_2")

    methods = ("lora", "full")
    alone = {method: train(config("1", method, 1)) for method in methods}
    together = in_two_processes(
        *(config("2", method, 2) for method in methods),
        *(config("1-2", method, 2, resume=after_2("1", method)) for method in methods),
    )
    for method, two, one_two in zip(methods, together[:2], together[2:], strict=True):
        one = alone[method]
        assert losses(two) == pytest.approx(losses(one), abs=1e-5)
        for name in ("grad_norm", "tokens", "tokens_trained"):
            assert [step[name] for step in two] == pytest.approx(
                [step[name] for step in one], abs=1e-5
            )
        assert two[3]["validation_loss"] == pytest.approx(one[3]["validation_loss"], abs=1e-5)
        two_one = train(config("2-1", method, 1, resume=after_2("2", method)))
        for rest in (one_two, two_one):
            assert [step["step"] for step in rest] == [3, 4, 5, 6]
            assert losses(rest) == pytest.approx(losses(one)[2:], abs=1e-5)
        for name in ("2", "1-2", "2-1"):
            assert_close(tmp_path / f"{method}-1", tmp_path / f"{method}-{name}")
