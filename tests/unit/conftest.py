"""Fixtures for unit tests."""

import pytest

from entrypoint import hardware


@pytest.fixture(autouse=True)
def _torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on which torch is installed: what imports take is told by it."""
    monkeypatch.setattr(hardware, "torch_build", lambda: "cpu")
