"""entrypoint.process: output, exit codes and signals of real processes."""

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import entrypoint
from entrypoint.command import Command
from entrypoint.errors import TrainingError
from entrypoint.process import PROGRESS_SECONDS, LineSplitter, beside, git_revision, pieces, run
from entrypoint.team import Abort


def python(code: str, **environment: str) -> Command:
    return Command(argv=(sys.executable, "-c", code), environment=environment)


def test_output_goes_to_log_and_terminal(tmp_path: Path):
    log, terminal = tmp_path / "logs" / "train.log", io.StringIO()
    ended = run(
        python("import os, sys; print(os.environ['X']); print('e', file=sys.stderr)", X="out"),
        os.environ,
        log,
        terminal,
    )
    assert ended.code == 0
    assert ended.signal_received is None
    assert sorted(log.read_text().split()) == ["e", "out"]
    assert terminal.getvalue() == log.read_text()


def test_the_exit_code_and_the_last_lines_come_back(tmp_path: Path):
    ended = run(
        python("import sys; print('why'); sys.exit(9)"), os.environ, tmp_path / "l", io.StringIO()
    )
    assert (ended.code, ended.tail) == (9, "why")


def test_secrets_are_replaced_in_both_places(tmp_path: Path):
    log, terminal = tmp_path / "l", io.StringIO()
    secret = "hf_secret_" + "x" * 70_000
    environ = os.environ | {"HF_TOKEN": secret}
    # flushed in the middle, so that it arrives in two pieces
    code = (
        "import os, sys, time; t = os.environ['HF_TOKEN']; sys.stdout.write('a ' + t[:9]);"
        "sys.stdout.flush(); time.sleep(0.3); print(t[9:] + ' b')"
    )
    run(python(code), environ, log, terminal)
    assert log.read_text() == terminal.getvalue() == "a *** b\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_awaited(tmp_path: Path, number: signal.Signals):
    code = (
        "import signal, sys, time\n"
        "def stop(number, frame): print('saved', number, flush=True); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, stop); signal.signal(signal.SIGINT, stop)\n"
        "print('ready', flush=True); time.sleep(30)"
    )
    log = tmp_path / "l"

    def interrupt() -> None:
        while not (log.exists() and "ready" in log.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    handler_before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    ended = run(python(code), os.environ, log, io.StringIO())
    thread.join()
    assert ended.signal_received == number
    assert ended.code == 3
    assert f"saved {number.value}" in ended.tail
    assert signal.getsignal(number) is handler_before


def test_a_process_that_outstays_its_grace_is_killed(tmp_path: Path):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    log = tmp_path / "l"

    def interrupt() -> None:
        while not (log.exists() and "ready" in log.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    ended = run(python(code), os.environ, log, io.StringIO(), grace=0.2)
    thread.join()
    assert (ended.signal_received, ended.code) == (signal.SIGTERM, -signal.SIGKILL)


def test_a_missing_executable_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        run(Command(argv=("no-such-program",), environment={}), {}, tmp_path / "l", io.StringIO())


def test_progress_is_thinned_out_but_lines_never_are():
    lines: list[str] = []
    now = [100.0]
    splitter = LineSplitter(lines.append, clock=lambda: now[0])
    for percent in range(5):
        splitter.feed(f"{percent}%\r")
        now[0] += PROGRESS_SECONDS / 2
    for line in ("\n", "line 1\r\n", "line 2\n"):
        splitter.feed(line)
    assert lines == ["0%", "2%", "4%", "", "line 1", "line 2"]


def test_a_progress_bar_is_shown_as_it_moves(tmp_path: Path):
    """A bar that writes its carriage return first is not held back until its next move."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as stream:
        os.write(writing, b"start\n\r 10%")
        found = pieces(stream)
        assert [next(found) for _ in range(3)] == ["start\n", "\r", " 10%"]
        os.write(writing, b"\r 20%\r\nen")
        os.write(writing, b"d")
        os.close(writing)
        assert list(found) == ["\r", " 20%\r\n", "end\n"]


def test_git_revision_outside_a_checkout(tmp_path: Path):
    assert git_revision(tmp_path) is None


def test_a_failure_elsewhere_kills_the_command_at_once(tmp_path: Path):
    abort = Abort()
    threading.Timer(0.3, abort.now, (TrainingError("elsewhere"),)).start()
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    ended = run(python(code), os.environ, tmp_path / "l", io.StringIO(), ends=abort.ends)
    assert ended.code == -signal.SIGKILL
    assert time.monotonic() - began < 30


DIES_WITH_PARENT = """
import os, signal, subprocess, sys, time
from entrypoint.tune.agent import die_with_parent
if sys.argv[1:]:
    die_with_parent()
    print("ready", flush=True)
    time.sleep(60)
child = subprocess.Popen((sys.executable, sys.argv[0], "child"), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_parent_has_started_dies_too(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(DIES_WITH_PARENT)
    command = Command(
        argv=(sys.executable, str(script)),
        environment={"PYTHONPATH": str(Path(entrypoint.__file__).parents[1])},
    )
    ended = run(command, os.environ, tmp_path / "l", io.StringIO())
    assert ended.code == -signal.SIGKILL
    pid = int(ended.tail)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "(zombie)" not in status_of(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def status_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return "(zombie)"


def test_what_runs_beside_is_awaited_or_killed(tmp_path: Path):
    done = tmp_path / "done"
    quick = python(f"open({str(done)!r}, 'w')")
    with beside(quick, os.environ):
        pass
    assert done.exists()
    with pytest.raises(KeyError), beside(python("import time; time.sleep(600)"), os.environ):
        raise KeyError
