"""entrypoint.models.download: what needs no hub; tests/e2e/test_hub.py has the rest."""

from pathlib import Path

import pytest
from filelock import FileLock

from entrypoint.errors import ModelError
from entrypoint.hub import Reference, Snapshot
from entrypoint.models import download as module
from entrypoint.models.download import Download

COMMIT = "a" * 40


@pytest.fixture
def download(tmp_path: Path) -> Download:
    reference = Reference(repo="acme/tiny")
    found = Download(reference, {"TRAIN_CACHE": str(tmp_path)})
    found._snapshot = Snapshot(reference=reference, commit=COMMIT, files={})
    return found


def test_5_a_run_that_waits_too_long_for_another(
    download: Download, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.3)
    lock = download.root / f"{COMMIT}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(ModelError, match=r"still fetching[\s\S]*\.lock"):
        download.complete(lambda _: ())
    assert "another process is fetching acme/tiny; waiting for it" in capsys.readouterr().err


def test_a_run_that_was_waiting_takes_what_the_other_has_fetched(download: Download):
    """No request at all: there is no hub to ask here."""
    folder = download.root / COMMIT
    folder.mkdir(parents=True)
    assert download.complete(lambda _: ()) == folder
