"""What holds of every command's words: JSON for programs, plain lines for files, 100 columns."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.cli import run, train
from entrypoint.errors import COLUMNS, SettingsError, fitted
from tests.reports import write_run

NO_RESULT = {"tune": "prints torchtune's own words", "completion": "prints a script"}
"""Commands without --json, and why."""
ESCAPE = "\x1b"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a run in outputs/, whose paths are short as seen from there."""
    write_run(tmp_path / "outputs" / "one")
    write_run(tmp_path / "outputs" / "two")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAIN_CACHE", "cache")
    return tmp_path


@pytest.mark.parametrize("name", sorted(train.commands))
def test_every_command_that_has_a_result_prints_it_as_json_when_asked(name: str):
    options = {option for one in train.commands[name].params for option in one.opts}
    assert ("--json" in options) == (name not in NO_RESULT)


QUICK = {
    "runs": ["runs"],
    "two runs": ["runs", "outputs/one", "outputs/two"],
    "models": ["models"],
    "one model": ["models", "embedded"],
    "prepare": ["prepare", "--no-tokens", "--max-rows", "4", "--output", "prepared"],
    "report": ["report", "outputs/one", "--output", "page.html"],
    "doctor": ["doctor"],
    "compare": ["compare", "outputs/one", "--output", "compared"],
    "dry run": ["sft", "--dry-run"],
}
"""Commands that take no training."""


@pytest.mark.parametrize("arguments", QUICK.values(), ids=QUICK)
def test_with_json_standard_output_is_one_document(
    arguments: list[str], place: Path, capsys: pytest.CaptureFixture[str]
):
    assert run([*arguments, "--json"]) in (0, 6)
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("arguments", QUICK.values(), ids=QUICK)
def test_where_no_terminal_is_lines_are_plain_and_fit(
    arguments: list[str],
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    assert run(arguments) in (0, 6)
    said = capsys.readouterr()
    text = said.out + said.err
    assert ESCAPE not in text
    assert "\r" not in text
    if arguments[0] not in ("models", "doctor"):  # tables of names that are there to be copied
        shown = text.partition("\n# ")[0].replace(str(place), "FOLDER")
        assert [line for line in shown.splitlines() if len(line) > COLUMNS] == []


def in_a_terminal(arguments: list[str], **environment: str) -> str:
    """What a command writes to a terminal of its own."""
    unset = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    ambient = {name: value for name, value in os.environ.items() if name not in unset}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-m", "entrypoint", *arguments),
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={**ambient, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # Linux says so at the end
            break
        if not piece:
            break
        pieces.append(piece)
    process.wait()
    os.close(ours)
    return b"".join(pieces).decode()


ROOT = Path(__file__).parents[2]
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|38;|9[0-7])[0-9;]*m")


def test_no_color_takes_colours_away_from_a_terminal(place: Path):
    assert COLOUR.search(in_a_terminal(["runs"]))
    assert not COLOUR.search(in_a_terminal(["runs"], NO_COLOR="1"))


@pytest.mark.parametrize("name", sorted(train.commands))
def test_errors_fit_and_are_plain(
    name: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    assert run([name, "--no-such-option" if name != "completion" else "csh"]) != 0
    assert run(["--no-such-option", name]) == 2
    said = capsys.readouterr().err
    assert ESCAPE not in said
    assert [line for line in said.splitlines() if len(line) > COLUMNS] == []


def test_a_message_is_broken_at_spaces_and_a_path_is_not():
    path = "/a/very-long/path/" + "x" * 120
    error = SettingsError("word " * 40, where=path, hint="lower --batch-size " * 10)
    lines = fitted(f"Error: {error}").splitlines()
    assert all(len(line) <= COLUMNS or path in line for line in lines)
    assert sum(path in line for line in lines) == 1
    assert not [line for line in lines if line.endswith("--batch-")]
    assert " ".join(" ".join(lines).split()) == " ".join(f"Error: {error}".split())


def complete(words: str, current: str) -> list[str]:
    """What bash would offer, from a process of its own."""
    code = (
        "import sys; from entrypoint.cli import main\n"
        "try: main([])\n"
        "finally: print('heavy', sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        (sys.executable, "-c", code),
        env=os.environ
        | {
            "_TRAIN_COMPLETE": "bash_complete",
            "COMP_WORDS": f"{words} {current}",
            "COMP_CWORD": str(len(words.split())),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    *found, heavy = ended.stdout.splitlines()
    assert heavy == "heavy []", ended.stderr
    return [line.partition(",")[2] for line in found]


def test_commands_options_and_values_are_completed_without_heavy_imports():
    assert set(complete("train", "re")) == {"report", "replay"}
    assert "--save-every" in complete("train sft", "--sa")
    assert complete("train sft --method", "qat") == ["qat", "qat-lora"]
    assert complete("train sft --then", "eval,q") == ["eval,quantize"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_names_its_variable(shell: str, capsys: pytest.CaptureFixture[str]):
    assert run(["completion", shell]) == 0
    assert "_TRAIN_COMPLETE=" in capsys.readouterr().out


def test_bash_completes_with_the_script(tmp_path: Path):
    """In a real bash: the script is sourced, and its function asked."""
    script = (
        'eval "$(python -m entrypoint completion bash)"\n'
        "COMP_WORDS=(train mod); COMP_CWORD=1; _train_completion train\n"
        'echo "${COMPREPLY[@]}"'
    )
    (tmp_path / "train").write_text('#!/bin/sh\nexec python -m entrypoint "$@"\n')
    (tmp_path / "train").chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ("bash", "-c", script),
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.strip() == "models", ended.stderr
