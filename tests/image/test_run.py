"""The image at work: as any user, without a network, on what cannot be written, and stopped."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import IMAGE, OLDER_IMAGE
from tests.image.docker import Ended, copy_of_project, docker, train

pytestmark = pytest.mark.image

SOMEBODY = 12345
CANARY = "hf_canary_6b7d21"
TINY = ("--model", "/models/tiny", "--data", "/workspace/data/rows.jsonl", "--max-seq-len", "128")


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A folder that belongs to somebody who is not root."""
    made = tmp_path / "outputs"
    made.mkdir()
    made.chmod(0o777)
    tmp_path.chmod(0o755)
    return made


def mounts(folder: Path, outputs: Path | None = None) -> tuple[str, ...]:
    options: tuple[str, ...] = ("-v", f"{folder / 'tiny'}:/models/tiny:ro")
    options += ("-v", f"{folder / 'data'}:/workspace/data:ro")
    return options + (("-v", f"{outputs}:/workspace/outputs") if outputs else ())


@pytest.mark.parametrize("which", [IMAGE, OLDER_IMAGE])
def test_the_doctor_finds_no_problem(which: str, image: str, older_image: str):
    report = json.loads(train(which, "doctor", "--json").stdout)
    assert report["ok"]
    levels = {finding["check"]: finding["level"] for finding in report["findings"]}
    assert levels["lock"] == levels["torch"] == levels["allocator"] == "ok"


def test_the_doctor_ends_with_six_when_there_is_a_problem(image: str):
    ended = train(image, "doctor", run=("--env", "TRAIN_DEVICE=cuda"), code=6)
    assert "problem  gpus" in ended.stdout
    assert "docker compose run --rm train" in ended.stdout


def test_the_unit_tests_pass_in_the_image(test_image: str, tmp_path: Path):
    project = copy_of_project(tmp_path)
    options = ("run", "--rm", "--network", "none", "-v", f"{project}:/src", "--workdir", "/src")
    for folder in ("entrypoint", "recipes"):
        same = ("diff", "-r", "-x", "__pycache__", folder, f"/opt/tunecask/{folder}")
        docker(*options, test_image, *same)
    argv = ("python", "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "tests/unit")
    # what sends jobs to Azure ML is not in the image
    docker(*options, test_image, *argv, "--ignore=tests/unit/aml")


def test_the_built_in_model_is_tuned_scored_and_quantized_without_a_network(
    image: str, cache: str, outputs: Path
):
    arguments = ("sft", "--then", "eval,quantize", "--max-steps", "2", "--limit", "4")
    run = ("-v", f"{cache}:/cache", "-v", f"{outputs}:/workspace/outputs")
    ended = train(image, *arguments, run=run)
    assert "embedded/exact_match" in ended.stdout
    (run_folder,) = outputs.iterdir()
    assert json.loads((run_folder / "result.json").read_text())
    assert (run_folder / "quantized/8da4w/config.json").is_file()
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert manifest["image"].startswith("tunecask:")


def test_any_user_trains_on_a_read_only_root_file_system(image: str, folder: Path, outputs: Path):
    run = (
        "--user", f"{SOMEBODY}:{SOMEBODY}", "--read-only", "--cap-drop", "ALL",
        "--tmpfs", "/tmp", "--tmpfs", "/cache:mode=1777", *mounts(folder, outputs),
    )  # fmt: skip
    train(image, "doctor", run=run)
    train(image, "sft", *TINY, "--max-steps", 2, "--output", "outputs/run", run=run)
    assert (outputs / "run/result.json").is_file()
    assert {path.stat().st_uid for path in outputs.rglob("*")} == {SOMEBODY}


@pytest.mark.parametrize("mode", ["read-only", "of somebody else"])
def test_outputs_that_cannot_be_written_are_refused_before_anything_else(
    mode: str, image: str, folder: Path, outputs: Path
):
    options = mounts(folder)
    if mode == "read-only":
        options += ("-v", f"{outputs}:/workspace/outputs:ro")
    else:
        outputs.chmod(0o755)
        options += ("-v", f"{outputs}:/workspace/outputs", "--user", f"{SOMEBODY}:{SOMEBODY}")
    ended = train(image, "sft", *TINY, run=options, code=3)
    assert "cannot be written" in ended.stdout
    assert "--output or TRAIN_OUTPUT" in ended.stdout
    assert list(outputs.iterdir()) == []
    report = train(image, "doctor", run=options, code=6)
    assert "/workspace/outputs cannot be written" in report.stdout


def test_too_little_memory_is_said_to_be_that(image: str, folder: Path, outputs: Path):
    run = ("--memory", "350m", "--memory-swap", "350m", *mounts(folder, outputs))
    arguments = ("sft", *TINY, "--output", "outputs/run")
    refused = train(image, *arguments, run=run, code=6)
    assert "--no-fit-check" in refused.stdout
    assert list(outputs.iterdir()) == []
    ended = train(image, *arguments, "--no-fit-check", run=run, code=None)
    assert ended.returncode in (7, 137)
    if ended.returncode == 7:
        assert "memory ran out, most likely" in ended.stdout
    report = train(image, "doctor", run=("--memory", "2g"), code=6)
    assert "problem  memory" in report.stdout


def started(image: str, *arguments: object, run: tuple[object, ...]) -> str:
    return docker("run", "--detach", *run, image, "train", *arguments).stdout.strip()


def wait_for(condition: Any, container: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        logs = docker("logs", container).stdout
        running = docker("inspect", "--format", "{{.State.Running}}", container).stdout.strip()
        assert running == "true", logs
        assert time.monotonic() < deadline, logs
        time.sleep(0.3)


def test_docker_stop_leaves_a_whole_checkpoint_and_143(image: str, folder: Path, outputs: Path):
    sft = ("sft", *TINY, "--batch-size", 1, "--epochs", 50, "--output", "outputs/run")
    options = ("--network", "none", *mounts(folder, outputs))
    container = started(image, *sft, run=options)
    metrics = outputs / "run/logs/metrics.jsonl"
    try:
        wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > 3, container)
        docker("stop", "--time", 60, container)
        code = docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()
        logs = docker("logs", container).stdout
    finally:
        docker("rm", "--force", container)
    assert code == "143", logs
    assert "a checkpoint is saved" in logs
    (saved,) = (outputs / "run/checkpoints").glob("step_*")
    step = int(saved.name.removeprefix("step_"))
    ended: Ended = train(
        image, *sft, "--max-steps", step + 1, "--resume", "auto", run=mounts(folder, outputs)
    )
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, step + 2)), ended.stdout


def test_a_secret_in_a_file_is_used_and_shown_nowhere(
    image: str, folder: Path, outputs: Path, tmp_path: Path
):
    (tmp_path / "HF_TOKEN").write_text(CANARY)
    (tmp_path / "HF_TOKEN").chmod(0o644)
    run = ("-v", f"{tmp_path / 'HF_TOKEN'}:/run/secrets/HF_TOKEN:ro", *mounts(folder, outputs))
    told = train(image, "doctor", run=run).stdout
    assert "set, by a file" in told
    ended = train(image, "sft", *TINY, "--max-steps", 1, "--output", "outputs/run", run=run)
    assert CANARY not in told + ended.stdout
    assert not [p for p in outputs.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]
