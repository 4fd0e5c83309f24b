"""entrypoint.secrets: what is hidden and what is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.cli import run
from entrypoint.errors import ExitCode, SettingsError
from entrypoint.secrets import Redactor, read_files

CANARY = "canary-2f9d81c6"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that secrets are read from."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setenv("TRAIN_SECRETS", str(secrets))
    return secrets


def test_values_of_secret_variables_are_replaced():
    redact = Redactor(
        {"HF_TOKEN": "hf_abcdefgh", "WANDB_API_KEY": "0123456789", "HOME": "/home/me"}
    )
    assert redact("x hf_abcdefgh 0123456789 /home/me") == "x *** *** /home/me"


def test_a_secret_that_contains_another_is_replaced_whole():
    redact = Redactor({"A_TOKEN": "12345678", "B_TOKEN": "12345678-more"})
    assert redact("12345678-more 12345678") == "*** ***"


def test_settings_with_a_secret_sounding_name_are_no_secrets():
    assert Redactor({"TOKENIZERS_PARALLELISM": "false"})("false") == "false"
    assert Redactor({"TRAIN_SECRETS": "/run/secrets"})("/run/secrets") == "/run/secrets"
    assert Redactor({})("anything") == "anything"


def test_a_secret_variable_that_is_absent_is_read_from_a_file_of_its_name(folder: Path):
    (folder / "HF_TOKEN").write_text(f"{CANARY}\n")
    (folder / "wandb_api_key").write_text("another-key")
    assert read_files(os.environ) == {"HF_TOKEN": CANARY, "WANDB_API_KEY": "another-key"}


def test_a_variable_wins_over_its_file(folder: Path):
    (folder / "HF_TOKEN").write_text(CANARY)
    assert read_files({**os.environ, "HF_TOKEN": "hf_mine"}) == {}
    assert read_files({**os.environ, "HF_TOKEN": ""}) == {"HF_TOKEN": CANARY}


def test_empty_files_folders_and_files_of_other_names_are_left_alone(folder: Path):
    (folder / "HF_TOKEN").touch()
    (folder / "MY_SECRET").mkdir()
    (folder / "PATH").write_text("/nowhere")
    (folder / "WANDB_API_KEY").symlink_to("/dev/null")
    assert read_files(os.environ) == {}


def test_without_the_folder_there_are_none(tmp_path: Path):
    assert read_files({"TRAIN_SECRETS": str(tmp_path / "none")}) == {}


def test_a_file_that_is_not_text_is_named_and_not_shown(folder: Path):
    (folder / "HF_TOKEN").write_bytes(b"\xff\xfe" + CANARY.encode())
    with pytest.raises(SettingsError, match="HF_TOKEN cannot be read") as raised:
        read_files(os.environ)
    assert "canary" not in str(raised.value)
    assert run(["models"]) == ExitCode.SETTINGS


def test_every_command_and_its_processes_have_the_secrets_of_files(folder: Path):
    (folder / "HF_TOKEN").write_text(CANARY)
    code = (
        "import os, subprocess, sys; from entrypoint.cli import run; code = run(['models'])\n"
        "subprocess.run((sys.executable, '-c', 'import os; print(os.environ[\"HF_TOKEN\"])'))\n"
        "sys.exit(code)"
    )
    ended = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    assert CANARY in ended.stdout


def test_a_password_in_an_address_is_hidden():
    hide = Redactor({"MLFLOW_TRACKING_URI": "https://ada:pass-71ab@host/x", "OTHER": "http://host"})
    assert (
        hide("cannot reach https://ada:pass-71ab@host/x") == "cannot reach https://ada:***@host/x"
    )
