"""Jobs that were sent: submit, follow, cancel, and start again where the run folder is."""

import json
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TextIO, cast

from entrypoint.errors import Interrupted, SettingsError, TrainingError
from entrypoint.files import write_json
from scripts.aml import blobs, sdk
from scripts.aml.job import as_yaml

RECORD = Path(".aml/last.json")
ENDED = ("Completed", "Failed", "Canceled", "NotResponding")
SIGTERM = 15
LOGS = "user_logs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The last job, for the targets that come after it. Holds no secret."""

    job: str
    run: str
    attempts: int
    document: dict[str, Any]
    """As sent, with the versions that Azure ML took."""
    subscription: str
    resource_group: str
    workspace: str


def read_record() -> Record | None:
    if not RECORD.is_file():
        return None
    return Record(**json.loads(RECORD.read_text("utf-8")))


def last() -> Record:
    """The last job.

    Raises:
        SettingsError: none was submitted from here.
    """
    record = read_record()
    if record is None:
        raise SettingsError(
            "no job was submitted from here", where=RECORD, hint="`make aml-submit`, or --job NAME"
        )
    return record


def submit(ml: Any, document: dict[str, Any], run: str, attempts: int = 1) -> tuple[str, str]:
    """Send a job and remember it.

    Returns:
        Its name, and the address of its page.
    """
    made = ml.jobs.create_or_update(sdk.load(as_yaml(document), Path.cwd()))
    pinned = dict(document)
    if "code" in document:
        pinned["code"] = _reference(made.code)
    pinned["environment"] = _reference(made.environment)
    pinned["inputs"] = {
        name: {**value, "path": _reference(made.inputs[name].path)}
        for name, value in document.get("inputs", {}).items()
    }
    if not pinned["inputs"]:
        del pinned["inputs"]
    record = Record(
        job=made.name,
        run=run,
        attempts=attempts,
        document=pinned,
        subscription=ml.subscription_id,
        resource_group=ml.resource_group_name,
        workspace=ml.workspace_name,
    )
    write_json(RECORD, asdict(record))
    return str(made.name), str(made.studio_url)


def status_of(ml: Any, job: str) -> str:
    """As Azure ML has it: Running, Completed, Failed."""
    status = ml.jobs.get(job).status
    return str(getattr(status, "value", status))


def _reference(asset: object) -> str:
    """A version that Azure ML has taken, as a job's YAML names it."""
    text = str(asset)
    return text if text.startswith("azureml:") else f"azureml:{text}"


def resume(ml: Any, record: Record) -> tuple[str, str]:
    """Start the run of a job that has ended again: the same code, versions and run folder.

    Raises:
        SettingsError: it has not ended, or has ended well.
    """
    status = status_of(ml, record.job)
    if status not in ENDED:
        raise SettingsError(
            f"{record.job} has not ended: {status}",
            where=record.job,
            hint="`make aml-cancel` first",
        )
    if status == "Completed":
        raise SettingsError(f"{record.job} has ended well", where=record.job)
    attempts = record.attempts + 1
    name = f"{record.run}-{attempts}"
    return submit(ml, {**record.document, "name": name}, record.run, attempts)


def follow(ml: Any, job: str, terminal: IO[str]) -> None:
    """Print what the job prints until it ends; of one that has ended, all that it has printed.

    Raises:
        TrainingError: it has failed.
        Interrupted: it was cancelled.
    """
    from azure.ai.ml.exceptions import JobException

    streamed = _Streamed(terminal)
    if status_of(ml, job) not in ENDED:
        try:
            with redirect_stdout(cast("TextIO", streamed)):
                ml.jobs.stream(job)
        except JobException as error:
            if status_of(ml, job) != "Failed":
                raise SettingsError(str(error), where=job) from error
    if not streamed.a_log:
        _print_logs(ml, job, terminal)
    status = status_of(ml, job)
    if status == "Canceled":
        raise Interrupted(SIGTERM, "the job was cancelled", where=job, hint="`make aml-resume`")
    if status != "Completed":
        raise TrainingError(
            f"the job has ended: {status}",
            where=job,
            hint="its log says why; then `make aml-resume`",
        )
    terminal.write(f"{job}: {status}\n")


class _Streamed:
    """The terminal as the SDK writes to it. It streams no log of a job that has ended, also of one
    that ends while it is being asked for.
    """

    def __init__(self, terminal: IO[str]) -> None:
        self.terminal = terminal
        self.a_log = False

    def write(self, text: str) -> int:
        self.a_log = self.a_log or text.startswith(f"Streaming {LOGS}")
        return self.terminal.write(text)

    def flush(self) -> None:
        self.terminal.flush()


def _print_logs(ml: Any, job: str, terminal: IO[str]) -> None:
    sent = ml.jobs.get(job)
    folder = blobs.place(ml, sent.outputs["default"].path)
    for name in folder.names(LOGS):
        terminal.write(f"== {name}\n")
        terminal.write((folder.read(f"{LOGS}/{name}") or b"").decode("utf-8", "replace"))


def cancel(ml: Any, job: str) -> str:
    """End a job; its run folder keeps what it has. Returns its status."""
    ml.jobs.begin_cancel(job).result()
    return status_of(ml, job)
