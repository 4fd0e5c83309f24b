"""The stand-in for a module, and commands as a user runs them; collected by `make aml-test`."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.aml.storage import AZURITE, azurite

collect_ignore_glob = [] if os.environ.get(AZURITE) else ["test_*.py"]

if os.environ.get(AZURITE):
    from tests.aml.canaries import CANARIES
    from tests.aml.control_plane import STORES, ControlPlane, control_plane


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ControlPlane]":
    folder = tmp_path_factory.mktemp("aml")
    with azurite(folder, STORES) as storage, control_plane(storage, folder / "jobs") as found:
        yield found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user sits: a working directory for a whole module."""
    return tmp_path_factory.mktemp("desk")


Aml = Callable[..., tuple[int, str]]


@pytest.fixture
def aml(
    plane: "ControlPlane",
    desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Aml:
    """Runs a command against the stand-in, with a secret in every variable that may hold one; gives
    exit code and output."""
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    for name, value in plane.environment().items():
        monkeypatch.setenv(name, value)
    for name, value in {"SUBSCRIPTION_ID": "s", "RESOURCE_GROUP": "g", "WORKSPACE": "w"}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    monkeypatch.chdir(desk)

    def run(*arguments: object) -> tuple[int, str]:
        from scripts.aml import cli

        capfd.readouterr()
        code = cli.run([str(one) for one in arguments])
        out, err = capfd.readouterr()
        return code, re.sub(r"\s+\n", "\n", out + err)

    return run
