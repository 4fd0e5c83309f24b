"""entrypoint.run_folder."""

from pathlib import Path

import pytest

from entrypoint.run_folder import default_output


def test_a_folder_that_is_there_is_not_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two commands may come within a second."""
    monkeypatch.chdir(tmp_path)
    seen = set()
    for _ in range(3):
        folder = default_output("compare", "a/tuned")
        assert folder.name.startswith("compare-tuned-")
        folder.mkdir(parents=True)
        seen.add(folder)
    assert len(seen) == 3
