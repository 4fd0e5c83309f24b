"""A hub on the loopback for whole commands, which run in processes of their own: huggingface_hub
reads its variables when it is imported."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

import entrypoint
from tests.e2e.starting import Train, in_this_process
from tests.hub_server import HubServer, Repo
from tests.tiny import write_tiny_model

NAME = "acme/tiny"
WEIGHTS = "model.safetensors"
MIB = 1 << 20

Process = subprocess.Popen[str]


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """For tests of what a command does, where other tests start it as a process."""
    return in_this_process(monkeypatch, capsys)


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 MB of weights: enough to be killed in the middle of."""
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "wide", hidden=512)
    for unwanted in (
        "pytorch_model.bin",
        "model.py",
        "original/consolidated.00.pth",
        "tf_model.h5",
    ):
        (folder / unwanted).parent.mkdir(exist_ok=True)
        (folder / unwanted).write_bytes(b"not wanted")
    (folder / "README.md").write_text("licence: theirs")
    (folder / "LICENSE").write_text("theirs")
    return folder


@pytest.fixture
def server() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.close()


@pytest.fixture
def repo(server: HubServer, wide_model: Path) -> Repo:
    return server.add(NAME, wide_model)


class Launcher:
    """Starts Python processes with a cache of their own and the loopback hub."""

    def __init__(self, server: HubServer, folder: Path) -> None:
        self.server, self.folder, self.cache = server, folder, folder / "cache"
        ambient = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        self.environment = ambient | {
            "HF_ENDPOINT": server.url,
            "TRAIN_CACHE": str(self.cache),
            "HF_HOME": str(folder / "hf"),
            # the folder below is not the checkout
            "PYTHONPATH": str(Path(entrypoint.__file__).parents[1]),
        }

    def start(self, *argv: object, **environment: str) -> Process:
        return subprocess.Popen(
            (sys.executable, *map(str, argv)),
            env=self.environment | environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, *arguments: object, **environment: str) -> Process:
        return self.start("-m", "entrypoint", *arguments, **environment)


@pytest.fixture
def launcher(server: HubServer, tmp_path: Path) -> Launcher:
    return Launcher(server, tmp_path)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's Chromium, without a window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Chromium is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            # without a sandbox it runs as root, in containers
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()
