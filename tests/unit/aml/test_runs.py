import io
import sys
from types import SimpleNamespace

import pytest

from entrypoint.errors import TrainingError
from scripts.aml import blobs, runs

LOG = "user_logs/std_log_process_0.txt"


class Jobs:
    """One job, which ends as soon as somebody follows it; ``log`` is what the SDK streams of it."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.status = "Running"

    def get(self, name: str) -> SimpleNamespace:
        output = SimpleNamespace(path="azureml://datastores/logs/paths/a")
        return SimpleNamespace(status=self.status, outputs={"default": output})

    def stream(self, name: str) -> None:
        from azure.ai.ml.exceptions import JobException

        self.status = "Failed"
        sys.stdout.write(self.log)
        raise JobException("failed", no_personal_data_message="failed")


@pytest.mark.parametrize("streamed", ["", f"Streaming {LOG}\n"], ids=["not", "streamed"])
def test_the_log_of_a_job_that_ends_while_it_is_asked_for_is_printed_once(monkeypatch, streamed):
    stored = SimpleNamespace(names=lambda _: [LOG], read=lambda _: b"no answer in row 1\n")
    monkeypatch.setattr(blobs, "place", lambda *_: stored)
    terminal = io.StringIO()
    with pytest.raises(TrainingError, match="Failed"):
        runs.follow(SimpleNamespace(jobs=Jobs(streamed)), "a", terminal)
    assert ("no answer in row 1" in terminal.getvalue()) == (not streamed)
    assert terminal.getvalue().count(LOG) == 1
