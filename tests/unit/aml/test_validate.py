"""`make aml-validate`: the YAML of jobs, and the refusal of each that cannot run."""

import sys
from pathlib import Path

import pytest
import yaml

from entrypoint.errors import ExitCode
from scripts.aml import check, cli, sizes, snapshot
from scripts.aml.vault import SECRETS
from tests.unit.golden import check_golden

GPUS = ("--compute", "gpus", "--size", "Standard_NC48ads_A100_v4")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def validated(capsys, *args: str) -> tuple[int, str, str]:
    code = cli.run(["validate", *args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (
            "sft",
            (*GPUS, "--nodes", "2", "--key-vault", "https://v.vault.azure.net", "--tag", "team=a",
             "--timeout", "90", "sft", "--data", "azureml:rows@latest", "--model",
             "microsoft/phi-4", "--then", "quantize,eval", "--set", "clip_grad_norm=1 + 0"),
        ),
        (
            "dpo-per-gpu",
            (*GPUS, "--start", "gpu", "--environment", "tunecask:3", "--identity", "none",
             "--connections", "--docker-args", "--ulimit memlock=-1", "dpo", "--data",
             "azureml://datastores/workspaceblobstore/paths/pairs.jsonl"),
        ),
        (
            "kd-curated-serverless",
            ("--compute", "serverless", "--size", "Standard_NC24ads_A100_v4", "--tier",
             "low-priority", "--install", "--environment",
             "azureml://registries/azureml/environments/acpt-pytorch-2.8-cuda12.6/labels/latest",
             "kd", "--model", "Qwen/Qwen2-0.5B-Instruct", "--teacher", "Qwen/Qwen2-1.5B-Instruct"),
        ),
        (
            "eval",
            ("--compute", "cpus", "eval", "--model", "azureml:booking@latest", "--limit", "8"),
        ),
    ],
)  # fmt: skip
def test_the_yaml_of_a_job_is_as_reviewed(capsys, name: str, args: tuple[str, ...]):
    code, out, err = validated(capsys, "--name", "a-run", *args)
    assert code == 0, err
    check_golden(f"aml/{name}.yaml", out)


BAD_SETTINGS = {
    "no compute": (("sft",), "compute: none is named"),
    "no size": (("--compute", "serverless", "sft"), "resources.instance_type"),
    "shm_size": (("--compute", "c", "--shm-size", "lots", "sft"), "shm_size: 'lots'"),
    "zero nodes": (("--compute", "c", "--nodes", "0", "sft"), "--nodes"),
    "unknown size": (("--compute", "c", "--size", "Standard_NC9000", "sft"), "Standard_NC9000"),
    "GPUs of a CPU": (
        ("--compute", "c", "--size", "Standard_D4s_v3", "sft", "--device", "cuda"),
        "--device cuda: Standard_D4s_v3 has no GPU",
    ),
    "a process for each of no GPUs": (
        ("--compute", "c", "--size", "Standard_D4s_v3", "--start", "gpu", "sft"),
        "needs a size that has GPUs",
    ),
    "too many processes": (
        (*GPUS, "sft", "--nproc-per-node", "3"),
        "--nproc-per-node 3: Standard_NC48ads_A100_v4 has 2 GPUs",
    ),
    "a model that cannot fit": (
        ("--compute", "c", "--size", "Standard_NC4as_T4_v3", "sft", "--method", "full",
         "--model", "microsoft/phi-4"),
        "--model microsoft/phi-4: weights, gradients and optimizer",
    ),
    "a model that cannot fit a CPU's memory": (
        ("--compute", "c", "--size", "Standard_D4s_v3", "sft", "--method", "full", "--model",
         "microsoft/phi-4"), "and 1 x Standard_D4s_v3 has 17 GB;",
    ),
    "missing Dockerfile": (
        ("--compute", "c", "--dockerfile", "Dockerfile.none", "sft"),
        "dockerfile_path: there is no file",
    ),
    "two sources of tokens": (
        ("--compute", "c", "--key-vault", "https://v", "--connections", "sft"), "not from both",
    ),
    "tag": (("--compute", "c", "--tag", "hf_token=x", "sft"), "hf_token looks like a secret"),
    "name": (("--compute", "c", "--name", "a b", "sft"), "'a b' is no name of a job"),
    "train's own": (("--compute", "c", "sft", "--batch-size", "0"), "--batch-size"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_of_no_job_are_refused_by_name(capsys, name: str):
    args, complaint = BAD_SETTINGS[name]
    code, out, err = validated(capsys, *args)
    assert code in (ExitCode.USAGE, ExitCode.SETTINGS)
    assert complaint in err
    assert not out


@pytest.mark.parametrize(
    ("name", "memory"),
    [("Standard_E8ds_v5", 64), ("standard_f16s_v2", 32), ("Standard_DS3_v2", None)],
)
def test_the_memory_of_a_size_is_known_where_its_name_says_its_cores(name: str, memory):
    assert sizes.documented(name).memory_gb == memory


def job(**changes):
    """A job that nothing is wrong with, changed."""
    return {
        "type": "command",
        "command": 'train sft --data "${{inputs.data}}" --output "${{outputs.run}}"',
        "environment": "azureml:tunecask@latest",
        "compute": "azureml:gpus",
        "inputs": {"data": {"type": "uri_folder", "path": "azureml:rows@latest"}},
        "outputs": {"run": {"type": "uri_folder", "mode": "rw_mount"}},
        "resources": {"instance_count": 1, "shm_size": "8g"},
        **changes,
    }


BAD_JOBS = {
    "undeclared output": (job(outputs={}), "outputs.run: the command uses it"),
    "undeclared input": (job(inputs={}), "inputs.data: the command uses it"),
    "another placeholder": (job(command="train sft ${{input.data}}"), "${{input.data}}"),
    "bad shm_size": (job(resources={"shm_size": "8 GB"}), "shm_size: '8 GB'"),
    "zero instances": (job(resources={"instance_count": 0}), "instance_count: 0"),
    "no compute": (job(compute=None), "compute: none is named"),
    "bad tier": (
        job(compute="serverless", queue_settings={"job_tier": "cheap"},
            resources={"instance_type": "Standard_D4s_v3"}), "job_tier: 'cheap'",
    ),
    "tier of a cluster": (job(queue_settings={"job_tier": "spot"}), "queue_settings"),
    "missing context": (
        job(environment={"build": {"path": "nowhere"}}), "build.path: there is no folder",
    ),
    "missing Dockerfile": (
        job(environment={"build": {"path": "."}}), "dockerfile_path: there is no file",
    ),
    "large Dockerfile": (
        job(environment={"build": {"path": ".", "dockerfile_path": "Large"}}), "1 MB or more",
    ),
    "wrong model type": (
        job(inputs={"data": {"type": "torch_model", "path": "azureml:m@latest"}}),
        "inputs.data.type: 'torch_model'",
    ),
    "secret variable": (
        job(environment_variables={"HF_TOKEN": "x"}), "environment_variables.HF_TOKEN",
    ),
    "zero timeout": (job(limits={"timeout": 0}), "limits.timeout: 0"),
    "zero processes": (
        job(distribution={"type": "pytorch", "process_count_per_instance": 0}),
        "process_count_per_instance: 0",
    ),
    # what the SDK finds
    "unknown field": (job(comput="x"), "comput"),
    "no command": (job(command=None), "command"),
    "no environment": (job(environment=None), "environment"),
    "bad distribution": (job(distribution={"type": "horovodd"}), "distribution"),
    "missing code": (job(code="./nowhere"), "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_JOBS)
def test_a_job_that_cannot_run_is_refused_by_name(capsys, tmp_path: Path, name: str):
    made, complaint = BAD_JOBS[name]
    (tmp_path / "Large").write_text("#" * 1_000_000)
    (tmp_path / "job.yml").write_text(yaml.safe_dump(made))
    code, out, err = validated(capsys, "--job", "job.yml")
    assert code == ExitCode.SETTINGS
    assert complaint in err
    assert not out


def test_a_job_that_nothing_is_wrong_with_passes(capsys, tmp_path: Path):
    (tmp_path / "job.yml").write_text(yaml.safe_dump(job()))
    assert validated(capsys, "--job", "job.yml")[0] == 0


def test_all_problems_are_told_at_once(tmp_path: Path):
    made = job(compute=None, inputs={}, resources={"instance_count": 0, "shm_size": "x"})
    assert len(check.problems(made, tmp_path)) == 4


def test_a_secret_within_the_job_is_refused_and_not_repeated(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary_in_a_tag")
    code, out, err = validated(capsys, "--compute", "c", "--tag", "a=hf_canary_in_a_tag", "sft")
    assert code == ExitCode.SETTINGS
    assert "HF_TOKEN: its value is in the job" in err
    assert "canary" not in out + err


def test_the_snapshot_has_what_the_job_needs_and_is_told(capsys, tmp_path: Path):
    code, _, err = validated(capsys, "--compute", "c", "--key-vault", "https://v.net", "sft")
    assert code == 0
    assert "# code snapshot, 1 files" in err
    there = {path.name for path in Path(".aml/code").rglob("*")}
    assert there == {"vault.py", snapshot.IGNORED}


def test_a_curated_environment_gets_what_an_installation_needs_and_no_more(capsys):
    curated = "azureml://registries/azureml/environments/acpt/labels/latest"
    args = ("--compute", "c", "--install", "--environment", curated, "sft")
    assert validated(capsys, *args)[0] == 0
    folder = Path(".aml/code")
    tops = {path.name for path in folder.iterdir()}
    assert tops == {
        "LICENSE", "pyproject.toml", "requirements.lock", "scripts", "entrypoint", "recipes",
        snapshot.IGNORED,
    }  # fmt: skip
    assert [path.name for path in (folder / "scripts").iterdir()] == ["base_torch.py"]
    assert not list(folder.rglob("__pycache__"))


def test_nothing_is_shipped_when_the_image_has_all(capsys):
    code, out, err = validated(capsys, "--compute", "c", "sft")
    assert code == 0
    assert "code:" not in out
    assert "the image has all" in err


def test_the_modules_of_the_job_import_nothing_of_azure():
    """The pure part is usable, and `--help` is quick, where the SDK is not installed."""
    import subprocess

    code = (
        "import sys; from scripts.aml import cli; cli.run(['validate', '--help'])\n"
        "sys.exit(', '.join(name for name in sys.modules if name.startswith('azure')) or 0)"
    )
    ended = subprocess.run(
        (sys.executable, "-c", code), cwd=snapshot.ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_the_names_of_secrets_in_the_vault_are_secret_names():
    assert all(check.SECRET_NAME.search(name) for name in SECRETS)


def test_a_dry_run_prints_what_is_validated_and_azures_own_loader_takes_it(capsys, tmp_path: Path):
    from azure.ai.ml import load_job

    options = (*GPUS, "--nodes", "2", "--name", "a-run", "sft", "--data", "azureml:rows@latest")
    made = validated(capsys, *options)[1]
    assert cli.run(["submit", "--dry-run", *options]) == 0
    assert capsys.readouterr().out == made
    (tmp_path / "job.yml").write_text(made)
    loaded = load_job(tmp_path / "job.yml")
    assert (loaded.name, loaded.resources.instance_count) == ("a-run", 2)
    assert "train sft" in loaded.command
