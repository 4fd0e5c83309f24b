"""From prepared rows to a model that answers, over the wire of Azure ML's SDK."""

import json
from pathlib import Path

import pytest

from entrypoint import cli as train_cli
from entrypoint.errors import ExitCode
from scripts.aml import runs, vault
from tests.aml.canaries import IN_VAULT, nothing_secret
from tests.aml.control_plane import ControlPlane
from tests.aml.waiting import wait_until
from tests.recipes import few_rows

pytestmark = pytest.mark.e2e

MACHINES = ("--compute", "cpus", "--size", "Standard_D4s_v3")


def prepared(folder: Path) -> Path:
    rows = Path(few_rows(folder / "rows", train=24))
    out = folder / "prepared"
    code = train_cli.run(["prepare", "--data", str(rows / "train.jsonl"), "--output", str(out)])
    assert code == 0
    return out


def run_files(plane: ControlPlane, run: str) -> dict[str, bytes]:
    """The run folder in the datastore."""
    prefix = f"tunecask/{run}/"
    container = plane.storage.container("workspaceblobstore")
    return {
        blob.name.removeprefix(prefix): container.download_blob(blob.name).readall()
        for blob in container.list_blobs(prefix)
    }


def test_from_prepared_rows_to_a_model_that_answers(
    aml, plane: ControlPlane, desk: Path, tiny_model: Path
):
    plane.vault["HF-TOKEN"] = IN_VAULT
    rows = prepared(desk)

    # what a job refers to; the second time nothing is sent
    for made, there in (("created", 0), ("is there", 1)):
        code, said = aml("env")
        assert (code, made in said) == (0, True), said
        code, said = aml("data", rows)
        assert code == 0, said
        assert ("is there" if there else "uploaded") in said
        code, said = aml("compute", *MACHINES, "--nodes", 2, "--tier", "low-priority")
        assert (code, made in said) == (0, True), said
    assert plane.calls("PUT", "/environments/tunecask/versions/") == 1
    code, said = aml("env", "--environment", "pushed", "--image", "acme.azurecr.io/tunecask:1")
    assert (code, "environment pushed:" in said) == (0, True), said
    pushed = [found for path, found in plane.resources.items() if "/pushed/" in path]
    assert [one["properties"]["image"] for one in pushed] == ["acme.azurecr.io/tunecask:1"]
    assert plane.calls("PUT", "/data/rows/versions/") == 1
    assert plane.calls("PUT", "/computes/cpus") == 1

    # a job of two nodes, whose machines are taken away when there is a checkpoint
    train = (
        "sft", "--model", tiny_model, "--data", "azureml:rows@latest", "--dtype", "fp32",
        "--batch-size", 2, "--epochs", 4, "--max-seq-len", 256, "--save-every", 4, "--lr", 3e-3,
        "--then", "quantize",
    )  # fmt: skip
    machines = (*MACHINES, "--nodes", 2, "--key-vault", plane.address)
    code, said = aml("submit", *machines, "--name", "a-run", *train)
    assert code == 0, said
    assert "#   vault.py" in said
    assert plane.calls("GET", "/vmSizes") >= 1
    code, said = aml("resume")
    assert (code, "has not ended" in said) == (ExitCode.SETTINGS, True), said
    checkpoints = plane.jobs["a-run"].output / "run" / "checkpoints"
    wait_until(lambda: any(checkpoints.glob("step_*")) or plane.jobs["a-run"].status == "Failed")
    plane.jobs["a-run"].preempt()
    code, said = aml("logs")
    assert (code, "Failed" in said) == (ExitCode.TRAINING, True), said
    before = run_files(plane, "a-run")
    assert "result.json" not in before
    steps = len(before["logs/metrics.jsonl"].splitlines())
    assert steps >= 4

    # started again, it goes on in the same run folder; both nodes train
    code, said = aml("resume")
    assert (code, "job a-run-2" in said) == (0, True), said
    code, said = aml("logs")
    assert (code, "a-run-2: Completed" in said) == (0, True), said
    assert "Streaming user_logs/std_log_process_00.txt" in said
    assert "training" in said
    logs = (plane.folder / "a-run-2" / "user_logs" / "std_log_process_01.txt").read_text()
    assert "node 1 has trained" in logs
    after = run_files(plane, "a-run")
    numbers = [json.loads(line)["step"] for line in after["logs/metrics.jsonl"].splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert b"resumed after step" in after["logs/train.log"]
    assert len(numbers) > steps
    code, said = aml("resume")
    assert (code, "has ended well" in said) == (ExitCode.SETTINGS, True), said

    # registered once, with what it is made of; downloaded, loaded and asked
    for part, name in (("final", "a-run"), ("quantized/8da4w", "small")):
        code, said = aml("register", "--part", part, "--name", name)
        assert (code, f"model {name}:1: registered" in said) == (0, True), said
        code, said = aml("register", "--part", part, "--name", name)
        assert (code, f"model {name}:1: is there" in said) == (0, True), said
    code, said = aml("register", "--update")
    assert (code, "model a-run:2: registered" in said) == (0, True), said
    code, said = aml("register", "--part", "quantized/none", "--name", "x")
    assert (code, "no model quantized/none" in said) == (ExitCode.MODEL, True), said
    sent = [json.loads(body) for method, path, _, body in plane.requests
            if method == "PUT" and "/models/a-run/versions/1" in path]  # fmt: skip
    assert sent[0]["properties"]["tags"]["objective"] == "sft"
    assert sent[0]["properties"]["properties"]["tunecask.data.sha256"]
    code, said = aml("download")
    assert code == 0, said
    assert answers(desk / "outputs" / "a-run-2")
    code, said = aml("download", "--name", "small", "--output", "small")
    assert code == 0, said
    assert (desk / "small" / "config.json").is_file()
    code, said = aml("download", "--name", "small", "--output", "small")
    assert (code, "exists already" in said) == (ExitCode.SETTINGS, True), said

    code, said = aml("download", "--run")
    assert (code, "run of a-run-2: outputs/a-run-2-run" in said) == (0, True), said
    whole = desk / "outputs" / "a-run-2-run"
    fetched = {str(path.relative_to(whole)) for path in whole.rglob("*")}
    assert {"report.html", "manifest.json", "final/config.json", "logs/train.log"} <= fetched
    assert "checkpoints" not in fetched

    assert plane.calls("GET", "/secrets/HF-TOKEN") >= 1
    nothing_secret(plane, desk, least=100)


def answers(folder: Path) -> str:
    """What the downloaded model says."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Oslo?"}], add_generation_prompt=True, return_tensors="pt",
        return_dict=True,
    )  # fmt: skip
    made = model.generate(**asked, max_new_tokens=8, min_new_tokens=4, do_sample=False)
    return str(tokenizer.decode(made[0, asked["input_ids"].shape[1] :]))


def test_jobs_that_fail_or_are_cancelled_end_with_their_codes(
    aml, plane: ControlPlane, desk: Path, tiny_model: Path
):
    bad = desk / "bad.jsonl"
    bad.write_text('{"question": "no answer"}\n')
    model = ("--model", tiny_model, "--dtype", "fp32")
    aml("compute", *MACHINES)
    aml("env")
    code, said = aml("submit", *MACHINES, "--name", "bad", "sft", *model, "--data", bad)
    assert code == 0, said
    code, said = aml("logs")
    assert (code, "bad.jsonl" in said) == (ExitCode.TRAINING, True), said
    assert runs.last().job == "bad"

    code, said = aml("submit", *MACHINES, "--name", "long", "sft", *model, "--epochs", 50)
    assert code == 0, said
    wait_until(lambda: plane.jobs["long"].status == "Running")
    code, said = aml("cancel")
    assert (code, "job long: Canceled" in said) == (0, True), said
    code, said = aml("logs", "--job", "long")
    assert (code, "cancelled" in said) == (ExitCode.SIGTERM, True), said


def test_a_job_reads_its_tokens_from_connections_of_the_workspace(
    aml, plane: ControlPlane, desk: Path
):
    plane.vault["HF-TOKEN"] = IN_VAULT
    workspace = {"SUBSCRIPTION": "s", "RESOURCEGROUP": "g", "WORKSPACE_NAME": "w"}
    environ = {f"AZUREML_ARM_{name}": value for name, value in workspace.items()}
    environ |= {vault.CONNECTIONS: "yes", "WANDB_API_KEY": "is-here-already"}
    assert vault.fetch(environ) == {"HF_TOKEN": IN_VAULT}
    assert plane.calls("POST", "/connections/HF-TOKEN/listsecrets") == 1
    assert plane.calls("GET", "/connections/WANDB-API-KEY") == 0
    nothing_secret(plane, desk)


def test_sizes_come_from_azure_or_else_from_the_table(aml, plane: ControlPlane):
    code, said = aml("submit", "--compute", "x", "--size", "Standard_NC99", "sft")
    assert (code, "Standard_NC99 is not known" in said) == (ExitCode.SETTINGS, True), said
    size = ("--size", "Standard_NC48ads_A100_v4")
    code, said = aml("submit", "--compute", "x", *size, "sft")
    assert (code, "in the workspace's region" in said) == (ExitCode.SETTINGS, True), said
    plane.lists_sizes = False
    try:
        code, said = aml("submit", "--compute", "serverless", *size, "--name", "table", "--start",
                         "gpu", "--environment", "none", "sft")  # fmt: skip
    finally:
        plane.lists_sizes = True
    assert "is not known" not in said
    assert "table" not in plane.jobs


def test_a_workspace_that_is_not_named_or_not_ours_is_told(aml, monkeypatch):
    monkeypatch.setenv("AZURE_WORKSPACE", "other")
    code, said = aml("compute", *MACHINES, "--compute", "new")
    assert (code, "Azure ML refuses" in said) == (ExitCode.SETTINGS, True), said
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID")
    code, said = aml("env")
    assert (code, "AZURE_SUBSCRIPTION_ID" in said) == (ExitCode.SETTINGS, True), said
