"""compose.yaml: checked strictly, and used as README's section on Docker says, line by line."""

import json
import os
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import COMPOSE_IMAGE
from tests.image.docker import ROOT, call, docker

pytestmark = pytest.mark.image

OWNER = 12345
CANARY = "hf_canary_19ce55"
REFUSED = "no-gpu-here-use-train-cpu-instead"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)


def commands() -> list[str]:
    """The commands of README's section on Docker, in order."""
    section = (ROOT / "README.md").read_text("utf-8").split("\n## Docker\n", 1)[1]
    lines = "".join(BLOCK.findall(section.split("\n## ", 1)[0])).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def has_gpus() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What a command of README's has printed, and left in outputs/."""

    text: str
    runs: dict[str, Path]
    dashboards: dict[str, Any]


@pytest.fixture(scope="session")
def said(project: Path) -> dict[str, Said]:
    """All commands, run one after the other in a fresh checkout that belongs to a plain user."""
    home = project.parent / "home"
    home.mkdir(exist_ok=True)
    (home / ".hf_token").write_text(CANARY)
    (project / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{n}?", "completion": "Yes"}) + "\n" for n in range(16))
    )
    os.chown(project / "outputs", OWNER, OWNER)
    environment = {
        "HOME": str(home),
        # what is no part of the project: where the registry's client finds its settings
        "DOCKER_CONFIG": os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker")),
        "TUNECASK_SHM": "1gb",
        "IMAGE": COMPOSE_IMAGE,
    }
    seen: dict[str, Said] = {}
    known: set[Path] = set()
    for command in commands():
        refused = not has_gpus() and re.search(r"run --rm (-\S+ \S+ )*train ", command)
        ended = call(
            "bash", "-euo", "pipefail", "-c", command, cwd=project,
            environment=environment, code=1 if refused else 0,
        )  # fmt: skip
        runs = {path for path in (project / "outputs").iterdir() if path.is_dir()}
        seen[command] = Said(
            text=ended.stdout,
            runs={path.name: path for path in runs - known},
            dashboards=dashboards() if "--detach --wait" in command else {},
        )
        known |= runs
    return seen


def dashboards() -> dict[str, Any]:
    """What TensorBoard and MLflow answer."""
    client = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        "http://localhost:5000/api/2.0/mlflow/experiments/create",
        data=json.dumps({"name": "rehearsal"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    return {
        "tensorboard": client.open("http://localhost:6006/data/environment").read().decode(),
        "mlflow": json.load(client.open(request)),
    }


def of(said: dict[str, Said], *words: str) -> Said:
    (found,) = (value for key, value in said.items() if all(word in key for word in words))
    return found


def test_compose_has_no_complaint_about_any_profile():
    ended = docker("compose", "--profile", "*", "config", "--quiet")
    assert ended.stdout == ""


def test_the_gpus_are_reserved_and_can_be_chosen():
    def service(**environment: str) -> Any:
        text = docker("compose", "config", "--format", "json", environment=environment).stdout
        return json.loads(text)["services"]["train"]

    def reserved(train: Any) -> Any:
        (device,) = train["deploy"]["resources"]["reservations"]["devices"]
        return device["driver"], device["count"], device["capabilities"]

    assert reserved(service()) == ("nvidia", -1, ["gpu"])
    chosen = service(TUNECASK_GPUS="2", CUDA_VISIBLE_DEVICES="0,2")
    assert reserved(chosen) == ("nvidia", 2, ["gpu"])
    assert chosen["environment"]["CUDA_VISIBLE_DEVICES"] == "0,2"


def test_processes_of_several_gpus_have_the_memory_that_they_share():
    text = docker("compose", "config", "--format", "json").stdout
    train = json.loads(text)["services"]["train"]
    assert train["shm_size"] == str(8 * 2**30)
    assert train["ulimits"] == {"memlock": -1, "stack": 67108864}
    assert train["init"]


@pytest.mark.skipif(has_gpus(), reason="there are GPUs")
def test_without_a_gpu_the_error_names_the_service_to_use(said: dict[str, Said]):
    text = of(said, "run --rm train sft").text
    assert REFUSED in text
    assert "exit 1" in text


def test_the_doctor_finds_no_problem_in_a_service(said: dict[str, Said]):
    plain = said["docker compose run --rm train-cpu doctor"].text
    assert "no problems" in plain
    assert "1.0 GiB in /dev/shm: enough for several processes" in plain
    assert re.search("HF_TOKEN +not set", plain)


def test_a_run_belongs_to_the_owner_of_the_outputs(said: dict[str, Said]):
    (run,) = said["docker compose run --rm train-cpu sft --max-steps 2"].runs.values()
    assert any((run / "final").glob("*.safetensors"))
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (run, *run.rglob("*"))}
    assert owners == {(OWNER, OWNER)}


def test_data_is_seen_and_cannot_be_written(said: dict[str, Said], project: Path):
    (run,) = of(said, "--data data/rows.jsonl").runs.values()
    assert json.loads((run / "manifest.json").read_text())["data"]["train"]["rows"] == 16
    entry = "as-owner /workspace/outputs touch data/x"
    ended = docker(
        "compose", "run", "--rm", "--entrypoint", entry, "train-cpu", cwd=project, code=1
    )
    assert "Read-only file system" in ended.stdout


def test_a_variable_given_to_compose_reaches_the_command(said: dict[str, Said]):
    assert "of 2 rows" in of(said, "TRAIN_BATCH_SIZE=2").text


def test_settings_may_stand_in_an_env_file(said: dict[str, Said], project: Path):
    (project / ".env").write_text("TRAIN_BATCH_SIZE=3\n")
    try:
        ended = docker("compose", "run", "--rm", "train-cpu", "sft", "--dry-run", cwd=project)
    finally:
        (project / ".env").unlink()
    assert "of 3 rows" in ended.stdout


def test_a_token_in_a_file_is_there_and_is_not_shown(said: dict[str, Said], project: Path):
    text = of(said, "HF_TOKEN_FILE").text
    assert re.search("HF_TOKEN +set, by a file", text)
    everything = "".join(each.text for each in said.values())
    assert CANARY not in everything
    left = [path for path in (project / "outputs").rglob("*") if path.is_file()]
    assert left
    assert not [path for path in left if CANARY.encode() in path.read_bytes()]


def test_make_shell_opens_one_as_the_owner_of_the_outputs(said: dict[str, Said], project: Path):
    ended = call(
        "make", "--no-print-directory", "shell", cwd=project, input="id -u; train --version\n"
    )
    assert f"{OWNER}\ntrain, version" in ended.stdout


def test_the_dashboards_answer(said: dict[str, Said]):
    answers = of(said, "--detach --wait").dashboards
    assert "/workspace/outputs" in answers["tensorboard"]
    assert answers["mlflow"]["experiment_id"]


def test_a_run_is_told_to_mlflow_and_outlives_its_container(said: dict[str, Said], project: Path):
    assert of(said, "MLFLOW_TRACKING_URI").runs
    code = (
        "import sqlite3; database = sqlite3.connect('/mlflow/runs.db')\n"
        "print(database.execute('select name from experiments').fetchall())\n"
        "print(database.execute('select key, step from metrics').fetchall())"
    )
    ended = docker("compose", "run", "--rm", "mlflow", "python", "-c", code, cwd=project)
    assert "('rehearsal',)" in ended.stdout
    assert "('loss', 1)" in ended.stdout


def test_two_nodes_train_together(said: dict[str, Said], project: Path):
    run = of(said, "--profile two-nodes").runs["two-nodes"]
    result = json.loads((run / "result.json").read_text())
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["world"]["nodes"] == 2
    assert result["steps"] == 2
    lines = (run / "logs/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2


def test_a_run_of_compose_that_is_stopped_has_saved_a_checkpoint(
    said: dict[str, Said], project: Path
):
    name = "tunecask-test-stopped"
    arguments = ("--detach", "--name", name, "train-cpu", "sft", "--output", "outputs/stopped")
    docker("compose", "run", *arguments, cwd=project)
    metrics = project / "outputs/stopped/logs/metrics.jsonl"
    try:
        call("timeout", 240, "bash", "-c", f"until [ -s {metrics} ]; do sleep 0.5; done")
        # no --time: the service's grace period holds
        docker("stop", name)
        code = docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip()
        logs = docker("logs", name).stdout
    finally:
        docker("rm", "--force", name)
    assert code == "143", logs
    assert "a checkpoint is saved" in logs
    assert list((project / "outputs/stopped/checkpoints").glob("step_*"))
