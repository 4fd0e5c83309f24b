"""entrypoint.status: what status.json says while a run goes on, and afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint import launch, status
from entrypoint.errors import Interrupted, SettingsError, TrainingError
from entrypoint.gate import GateError
from entrypoint.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(root=tmp_path)


def test_a_run_is_running_and_then_finished(run: RunFolder):
    with status.recorded(run, {}):
        assert status.read(run)["status"] == "running"
    found = status.read(run)
    assert (found["status"], found["exit_code"], found["error"]) == ("finished", 0, None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TrainingError("it broke"), ("failed", 7, "it broke")),
        (KeyError("oops"), ("failed", 1, "KeyError('oops')")),
        (Interrupted(15, "stopped"), ("interrupted", 143, "stopped")),
        (KeyboardInterrupt(), ("interrupted", 130, "KeyboardInterrupt()")),
    ],
)
def test_how_it_ended_is_written_and_the_error_goes_on(run: RunFolder, error, expected):
    with pytest.raises(type(error)), status.recorded(run, {}):
        raise error
    found = status.read(run)
    assert (found["status"], found["exit_code"], found["error"]) == expected


def test_a_run_that_does_not_meet_a_condition_has_finished(run: RunFolder):
    run.result.write_text("{}")
    with pytest.raises(GateError), status.recorded(run, {}):
        raise GateError("1 of 1 conditions failed")
    assert status.read(run)["status"] == "finished"
    assert status.read(run)["exit_code"] == 8


def test_secrets_of_an_error_are_not_written(run: RunFolder):
    environ = {"HF_TOKEN": "hf_canary_1234"}
    with pytest.raises(TrainingError), status.recorded(run, environ):
        raise TrainingError("refused hf_canary_1234")
    assert "canary" not in run.status.read_text()


def test_a_run_whose_process_was_killed_was_interrupted(run: RunFolder):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from entrypoint import status; from entrypoint.run_folder import RunFolder\n"
        "with status.recorded(RunFolder(root=Path(sys.argv[1])), {}): os._exit(9)"
    )
    subprocess.run((sys.executable, "-c", code, str(run.root)), check=False)
    assert json.loads(run.status.read_text())["status"] == "running"
    assert status.read(run)["status"] == "interrupted"


def test_a_run_that_a_process_is_at_work_on_is_not_resumed(run: RunFolder):
    run.recipe.write_text("")
    with (
        status.recorded(run, {}),
        pytest.raises(SettingsError, match=f"process {os.getpid()} is at work on the run"),
    ):
        launch.check_output(run, 0, resumes=True)
    launch.check_output(run, 0, resumes=True)


def test_a_job_that_goes_on_on_another_machine_is_resumed(run: RunFolder):
    run.recipe.write_text("")
    with status.recorded(run, {}):
        found = json.loads(run.status.read_text())
        run.status.write_text(json.dumps(found | {"host": "another"}))
        launch.check_output(run, 0, resumes=True)


def test_of_another_machine_its_word_is_taken(run: RunFolder):
    with status.recorded(run, {}):
        found = json.loads(run.status.read_text())
    run.status.write_text(json.dumps(found | {"host": "elsewhere", "pid": 1}))
    assert status.read(run)["status"] == "running"


def test_runs_of_earlier_versions_have_no_status(run: RunFolder):
    assert status.read(run)["status"] == "interrupted"
    run.result.write_text("{}")
    assert status.read(run)["status"] == "finished"
