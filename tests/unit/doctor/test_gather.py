"""entrypoint.doctor.gather: what is read from a machine, here a made-up one."""

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.cli import run
from entrypoint.doctor import gather
from entrypoint.errors import ExitCode
from tests.unit.doctor import machines

CANARY = "hf_canary_77c1e0"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def test_comments_of_the_lock_are_no_requirements(tmp_path: Path):
    text = "# made by x\nabsl-py==2.5.1\n    # via y\nb==1 ; sys_platform == 'a'"
    lock = write(tmp_path, {"lock": text})
    assert gather.read_lock(lock / "lock") == ("absl-py==2.5.1", "b==1 ; sys_platform == 'a'")
    assert gather.read_lock(tmp_path / "none") is None


def test_of_two_installed_versions_the_one_that_is_imported_counts(tmp_path: Path):
    for folder, version in (("near", "2.0"), ("far", "1.0")):
        name = f"{folder}/Some_Package-{version}.dist-info/METADATA"
        write(tmp_path, {name: f"Metadata-Version: 2.1\nName: Some_Package\nVersion: {version}"})
    path = [str(tmp_path / "near"), str(tmp_path / "far")]
    assert gather.read_installed(path) == {"some-package": "2.0"}


def test_a_folder_that_is_yet_to_be_made_is_judged_by_the_one_above(tmp_path: Path):
    place = gather.look_at(tmp_path / "a" / "b")
    assert place.writable
    assert place.path == tmp_path / "a" / "b"
    (tmp_path / "file").touch()
    assert not gather.look_at(tmp_path / "file" / "below").writable


def test_tokens_are_told_by_what_set_them_and_their_values_are_not_kept(tmp_path: Path):
    (tmp_path / "HF_TOKEN").write_text(CANARY)
    environ = {
        "TRAIN_SECRETS": str(tmp_path),
        "HF_TOKEN": CANARY,
        "WANDB_API_KEY": f'"{CANARY}"',
    }
    tokens = gather.read_tokens(environ)
    hub, wandb = tokens["HF_TOKEN"], tokens["WANDB_API_KEY"]
    assert hub is not None
    assert wandb is not None
    assert (hub.source, hub.clean) == ("file", True)
    assert (wandb.source, wandb.clean) == ("environment", False)
    assert tokens["AZURE_CLIENT_SECRET"] is None
    assert CANARY not in repr(tokens)


def test_the_job_is_read_as_a_run_reads_it():
    job = {"WORLD_SIZE": "2", "NODE_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    found = gather.read_rendezvous(job)
    assert (found.nodes, found.rank, found.master) == (2, 1, "localhost:29500")
    assert found.master_found
    assert not gather.read_rendezvous(job | {"MASTER_ADDR": "no-such-host.invalid"}).master_found
    assert "MASTER_PORT" in (gather.read_rendezvous(job | {"MASTER_PORT": "x"}).error or "")
    assert gather.read_rendezvous({}).size == 1


def test_this_very_machine_can_be_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    facts = gather.gather({"HF_TOKEN": CANARY, "HOME": "/nowhere", "TRANSFORMERS_OFFLINE": "1"})
    assert facts.offline
    assert facts.torch is not None
    # a build's own part, as in 2.13.0+cu130, need not be in what is installed
    assert facts.installed["torch"].split("+")[0] == facts.torch.version.split("+")[0]
    assert any(line.startswith("peft==") for line in facts.lock or ())
    assert facts.memory >= facts.memory_free > 0
    assert CANARY not in repr(facts)


@pytest.mark.parametrize(
    ("facts", "code"),
    [(machines.laptop(), ExitCode.OK), (machines.laptop(memory_free=0), ExitCode.DOES_NOT_FIT)],
)
def test_the_exit_code_says_whether_there_is_a_problem(
    facts: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(gather, "gather", lambda _: facts)
    assert run(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is (code == ExitCode.OK)
    assert run(["doctor"]) == code
    ended = capsys.readouterr()
    assert "python" in ended.out
    assert ("not ready for every run: memory" in ended.err) is (code != ExitCode.OK)
