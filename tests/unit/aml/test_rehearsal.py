"""`make aml-rehearse`: what is refused, and what the machines do with a command."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from entrypoint.errors import ExitCode
from scripts.aml import cli, rehearsal
from scripts.aml.containers import Engine
from scripts.aml.machines import Nodes, Work, variables

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ, reason="mounts need root, or user namespaces"
)


def work(tmp_path: Path, command: str, **changes) -> Work:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "out").mkdir()
    given = {
        "command": command,
        "inputs": {"data": rows, "model": tmp_path / "model"},
        "outputs": {"run": tmp_path / "out"},
        "code": None,
        "environment": {"CUSTOM": "yes"},
        "nodes": 2,
        "processes": 1,
        "master_port": 1234,
    }
    return Work(**{**given, **changes})


def ran(tmp_path: Path, command: str, **changes) -> tuple[bool, list[str]]:
    """Whether all went well, and what each process printed."""
    nodes = Nodes(work=work(tmp_path, command, **changes), folder=tmp_path / "job")
    nodes.start()
    went_well = nodes.wait(60)
    return went_well, [path.read_text() for path in sorted(nodes.logs.glob("std_log_*"))]


def test_each_process_gets_the_variables_of_azure_ml(tmp_path: Path):
    names = "RANK LOCAL_RANK NODE_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT AZUREML_NODE_COUNT CUSTOM"
    went_well, said = ran(tmp_path, f"printenv {names}", processes=2)
    assert went_well
    assert [text.split() for text in said] == [
        [str(rank), str(rank % 2), str(rank // 2), "4", "127.0.0.1", "1234", "2", "yes"]
        for rank in range(4)
    ]


def test_the_variables_of_a_node_do_not_say_how_many_processes_it_has(tmp_path: Path):
    assert "LOCAL_WORLD_SIZE" not in variables(work(tmp_path, ""), 1, "here")


def test_an_input_cannot_be_written_to_and_an_output_is_the_same_place_for_all(tmp_path: Path):
    command = 'touch "${{outputs.run}}/$RANK"; cat "${{inputs.data}}"; touch "${{inputs.data}}"'
    went_well, said = ran(tmp_path, command)
    assert not went_well
    assert all(text.startswith("{}\n") and "Read-only file system" in text for text in said)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0", "1"]
    (tmp_path / "2").mkdir()
    went_well, said = ran(tmp_path / "2", 'touch "${{inputs.model}}/x"')
    assert not went_well
    assert not list((tmp_path / "2" / "model").iterdir())


def test_paths_of_inputs_need_quoting_and_differ_from_node_to_node(tmp_path: Path):
    _, said = ran(tmp_path, 'echo "${{inputs.model}}"; ls -d "$AZURE_ML_INPUT_model"')
    paths = [text.splitlines() for text in said]
    assert all(first == second and " " in first and ";" in first for first, second in paths)
    assert paths[0] != paths[1]


def test_a_job_whose_last_process_fails_has_failed(tmp_path: Path):
    assert not ran(tmp_path, "exit $((RANK == 3 ? 5 : 0))", processes=2)[0]


def test_code_is_a_copy_that_the_job_may_write_to(tmp_path: Path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "vault.py").touch()
    went_well, said = ran(tmp_path, "touch more && ls", code=tmp_path / "code")
    assert (went_well, said[0].split()) == (True, ["more", "vault.py"])
    assert [path.name for path in (tmp_path / "code").iterdir()] == ["vault.py"]


def test_a_signal_reaches_the_command_and_is_waited_for(tmp_path: Path):
    command = "trap 'sleep 0.2; echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    nodes = Nodes(work=work(tmp_path, command), folder=tmp_path / "job")
    nodes.start()
    logs = [nodes.logs / f"std_log_process_0{node}.txt" for node in range(2)]
    until = time.monotonic() + 30
    while not all(log.exists() and "up" in log.read_text() for log in logs):
        assert time.monotonic() < until
        time.sleep(0.05)
    nodes.signal(signal.SIGTERM)
    assert not nodes.wait(30)
    assert all(log.read_text().endswith("bye\n") for log in logs), [log.read_text() for log in logs]


def test_killed_nodes_leave_nothing_running(tmp_path: Path):
    # what `train` starts has a session of its own
    command = "setsid sleep 123.25 & echo $! ; wait"
    nodes = Nodes(work=work(tmp_path, command), folder=tmp_path / "job")
    nodes.start()
    log = nodes.logs / "std_log_process_01.txt"
    until = time.monotonic() + 30
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    nodes.kill()
    assert nodes.ended()
    found = subprocess.run(("pgrep", "-f", "sleep 123.25"), capture_output=True, check=False)
    assert not found.stdout


def test_what_a_job_would_not_have_stays_out():
    environ = {
        "HF_TOKEN": "secret-value", "TRAIN_LR": "1", "TRAIN_CACHE": "/c", "RANK": "3", "LANG": "C",
        "PATH": "/bin",
    }  # fmt: skip
    assert rehearsal.own(environ) == {"TRAIN_CACHE": "/c", "LANG": "C"}


def test_a_container_has_the_inputs_read_only_and_no_value_in_its_command():
    engine = Engine(image="i:1", job="Run_1", shm_size="16g", arguments=("--ulimit", "memlock=-1"))
    places = [("ro", Path("/rows"), Path("/a b/data")), ("rw", Path("/out"), Path("/a b/run"))]
    argv = engine.run(1, places, Path("/code"), Path("/logs"), ("HF_TOKEN", "RANK"), ("bash",))
    assert argv == (
        "docker", "run", "--rm", "--init", "--env", "TINI_KILL_PROCESS_GROUP=1",
        "--name", "tunecask-run_1-1", "--network", "tunecask-run_1", "--shm-size", "16g",
        "--volume", "/rows:/a b/data:ro", "--volume", "/out:/a b/run:rw",
        "--volume", "/code:/mnt/azureml/code:rw", "--volume", "/logs:/mnt/azureml/user_logs:rw",
        "--env", "HF_TOKEN", "--env", "RANK", "--ulimit", "memlock=-1",
        "--workdir", "/mnt/azureml/code", "i:1", "bash",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("sft", "--data", "azureml:rows@latest"), "--input data=PATH"),
        (("--input", "rows=.", "sft"), "the job has no input rows"),
        (("--input", "data=nowhere", "sft"), "NAME=PATH of something that is there"),
        (("--kill-at-step", "3", "sft", "--max-steps", "3"), "ends with step 3"),
        (("--kill-at-step", "3", "eval"), "train eval has no steps"),
        (("--install", "--environment", "azureml://registries/a/environments/b/labels/latest",
          "sft"), "would install Tunecask into this environment"),
        (("--shm-size", "lots", "sft"), "shm_size: 'lots'"),
    ],
)  # fmt: skip
def test_what_cannot_be_rehearsed_is_refused(tmp_path, monkeypatch, capsys, args, complaint):
    monkeypatch.chdir(tmp_path)
    code = cli.run(["rehearse", "--compute", "c", *args])
    assert code in (ExitCode.USAGE, ExitCode.SETTINGS)
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / rehearsal.FOLDER).exists()


def test_the_newest_step_is_read_of_whole_lines(tmp_path: Path):
    metrics = tmp_path / "metrics.jsonl"
    assert rehearsal.newest_step(metrics) == 0
    metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert rehearsal.newest_step(metrics) == 2
