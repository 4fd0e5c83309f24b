"""Images, and a copy of the project to run compose in. Everything here needs a Docker engine."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.image.docker import build, call, copy_of_project, docker
from tests.tiny import write_tiny_model

collect_ignore_glob = [] if os.environ.get("TUNECASK_IMAGE_TESTS") else ["test_*.py"]

RECOMMENDED = "Dockerfile.ubuntu2204"
IMAGE = "tunecask-test:ubuntu2204"
OLDER_IMAGE = "tunecask-test:ubuntu2004"
TEST_IMAGE = "tunecask-test:test"
SERVING_IMAGE = "tunecask-test:serving"
COMPOSE_IMAGE = "tunecask-test:compose"
"""What README's own `make image` makes, in a folder that git does not know."""
# On an engine of the user's, images of the usual names may be their own.
os.environ |= {
    "IMAGE": IMAGE,
    "TUNECASK_IMAGE": COMPOSE_IMAGE,
    "TUNECASK_DASHBOARDS_IMAGE": "tunecask-test:dashboards",
}


@pytest.fixture(scope="session")
def making(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `make image` prints. The second of several test processes finds all layers made."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "image.lock"):
        return call("make", "--no-print-directory", "image").stdout


@pytest.fixture(scope="session")
def image(making: str) -> str:
    return IMAGE


@pytest.fixture(scope="session")
def older_image() -> str:
    build("--file", "Dockerfile", "--tag", OLDER_IMAGE)
    return OLDER_IMAGE


@pytest.fixture(scope="session")
def test_image(image: str) -> str:
    build("--file", RECOMMENDED, "--target", "test", "--tag", TEST_IMAGE)
    return TEST_IMAGE


@pytest.fixture(scope="session")
def serving_image(image: str) -> str:
    arguments = ("--build-arg", "INFERENCE=yes", "--build-arg", "OPENSSH=yes")
    build("--file", RECOMMENDED, *arguments, "--tag", SERVING_IMAGE)
    return SERVING_IMAGE


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model and rows, for containers to mount."""
    root = tmp_path_factory.mktemp("image")
    write_tiny_model(root / "tiny")
    rows = [{"prompt": f"{number}?", "completion": "Yes"} for number in range(400)]
    (root / "data").mkdir()
    (root / "data/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture(scope="session")
def cache(image: str) -> Iterator[str]:
    """A volume that holds the built-in model, made without a network."""
    name = f"tunecask-test-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name)


@pytest.fixture(scope="session")
def project(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh checkout with a compose project of its own."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    before = os.environ.get("COMPOSE_PROJECT_NAME")
    os.environ["COMPOSE_PROJECT_NAME"] = f"tunecask-test-{uuid.uuid4().hex[:8]}"
    yield folder
    compose_down = ("compose", "--profile", "*", "down", "--volumes", "--remove-orphans")
    docker(*compose_down, cwd=folder)
    if before is None:
        del os.environ["COMPOSE_PROJECT_NAME"]
    else:
        os.environ["COMPOSE_PROJECT_NAME"] = before
