"""How far a run has come: running, finished, interrupted or failed, as its status.json says."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any, Literal

import psutil

from entrypoint.errors import ExitCode, Interrupted, TrainError
from entrypoint.files import read_json, write_json
from entrypoint.run_folder import RunFolder
from entrypoint.secrets import Redactor

Status = Literal["running", "finished", "interrupted", "failed"]
STATUS_VERSION = 1


@contextmanager
def recorded(run: RunFolder, environ: Mapping[str, str]) -> Iterator[None]:
    """While inside, the run is under way; then it is what it has come to.

    Args:
        environ: secrets of it are left out of an error's words.
    """
    here = psutil.Process()
    write_json(
        run.status,
        {
            "version": STATUS_VERSION,
            "status": "running",
            "host": socket.gethostname(),
            "pid": here.pid,
            "pid_started": here.create_time(),
        },
    )
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, (KeyboardInterrupt, Interrupted))
        code = error.exit_code if isinstance(error, TrainError) else ExitCode.BUG
        said = error.what if isinstance(error, TrainError) else repr(error)
        # a run that has its result has finished, whether or not it meets its conditions
        ended: Status = "interrupted" if interrupted else "failed"
        _end(
            run,
            "finished" if run.result.is_file() else ended,
            ExitCode.SIGINT if isinstance(error, KeyboardInterrupt) else code,
            Redactor(environ)(said),
        )
        raise
    _end(run, "finished", ExitCode.OK, None)


def _end(run: RunFolder, status: Status, code: int, error: str | None) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    found = {"status": status, "exit_code": int(code), "error": error, "ended": now}
    with suppress(OSError):  # what has gone wrong is said already: a full disk, for example
        write_json(run.status, {"version": STATUS_VERSION, **found})


def read(run: RunFolder) -> dict[str, Any]:
    """What is known, with `status` always there.

    A run whose process is gone without a word was interrupted: killed, or its machine lost.
    """
    found = read_json(run.status)
    if found is None:
        return {"status": "finished" if run.result.is_file() else "interrupted"}
    if found["status"] == "running" and not _alive(found):
        return {"status": "interrupted"}
    return found


def process_here(run: RunFolder) -> int | None:
    """The number of the process that is at work on the run on this machine; None where none is."""
    found = read_json(run.status) or {}
    here = found.get("status") == "running" and found["host"] == socket.gethostname()
    return int(found["pid"]) if here and _alive(found) else None


def _alive(found: Mapping[str, Any]) -> bool:
    if found["host"] != socket.gethostname():
        return True  # of another machine nothing else is known
    try:
        process = psutil.Process(found["pid"])
        started = process.create_time()
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
    except psutil.NoSuchProcess:
        return False
    # a number that was given anew belongs to a younger process
    return bool(abs(started - found["pid_started"]) < 1)
