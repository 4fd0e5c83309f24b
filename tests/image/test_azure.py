"""The image on Azure ML: it serves a model as an endpoint does, and is what a job's nodes run."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.aml import cli, rehearsal
from tests.image.docker import ROOT, docker
from tests.image.test_run import CANARY, wait_for

pytestmark = pytest.mark.image

ASK = """
import json, sys, urllib.error, urllib.request
address, body = sys.argv[1], sys.argv[2].encode() or None
request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
try:
    answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""


def asked(container: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """Status and text of an answer, asked for within the container; 0 where nothing listens."""
    sent = json.dumps(body) if body else ""
    argv = ("exec", container, "python", "-c", ASK, f"http://127.0.0.1:5001{path}", sent)
    ended = docker(*argv, code=None)
    if ended.returncode:
        return 0, ended.stdout
    status, text = json.loads(ended.stdout)
    return status, text


def test_the_serving_image_answers_without_a_network_and_ends_on_sigterm(
    serving_image: str, folder: Path
):
    """Started as an endpoint starts it: by its own command, behind nginx."""
    container = docker(
        "run", "--detach", "--network", "none",
        "--volume", f"{folder / 'tiny'}:/var/azureml-app/azureml-models/tiny/1:ro",
        "--volume", f"{ROOT / 'scripts/aml/score.py'}:/var/azureml-app/score.py:ro",
        "--env", "AZUREML_MODEL_DIR=/var/azureml-app/azureml-models/tiny/1",
        "--env", "AZUREML_ENTRY_SCRIPT=/var/azureml-app/score.py",
        serving_image,
    ).stdout.strip()  # fmt: skip
    try:
        wait_for(lambda: asked(container, "/") == (200, "Healthy"), container, 120)
        messages = [{"role": "user", "content": "Oslo?"}]
        status, text = asked(container, "/score", {"messages": messages, "max_new_tokens": 4})
        assert (status, list(json.loads(text))) == (200, ["text"]), docker("logs", container).stdout
        refused = asked(container, "/score", {"prompt": ""})
        assert refused[0] == 400
        assert json.loads(refused[1]) == {"error": "prompt is no text"}
        before = time.monotonic()
        docker("stop", "--time", 30, container)
        state = json.loads(docker("inspect", "--format", "{{json .State}}", container).stdout)
        # 137: it had to be killed
        assert state["ExitCode"] in (0, 143), docker("logs", container).stdout
        assert time.monotonic() - before < 20
    finally:
        docker("rm", "--force", container)


def test_a_rehearsal_in_the_image_trains_on_two_nodes(
    image: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    options = ("--compute", "c", "--name", "a-run", "--nodes", "2", "--image", image)
    inputs = ("--model", folder / "tiny", "--data", folder / "data")
    train = ("--dtype", "fp32", "--max-seq-len", 128, "--batch-size", 2, "--max-steps", 2)
    code = cli.run([str(word) for word in ("rehearse", *options, "sft", *inputs, *train)])
    said = "".join(capfd.readouterr())
    assert code == 0, said
    assert "2 processes on 2 nodes" in said
    job = rehearsal.FOLDER / "a-run"
    run = job / "datastores/workspaceblobstore/tunecask/a-run"
    logged = (run / "logs/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in logged] == [1, 2]
    # it ran in the image, not here
    assert json.loads((run / "manifest.json").read_text())["image"].startswith("tunecask:")
    logs = sorted((job / "attempt-1/user_logs").glob("std_log_process_*"))
    assert "node 1 has trained" in logs[1].read_text()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert CANARY.encode() not in b"".join((*written, said.encode()))
    # nothing of it is left with Docker
    for what in (("ps", "--all"), ("network", "ls")):
        left = docker(*what, "--quiet", "--filter", "name=tunecask-a-run").stdout
        assert left == ""
