"""The Dockerfiles, compose.yaml and the script that judges a base's torch, as text: no Docker."""

import difflib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.docker import ROOT

DOCKERFILES = ("Dockerfile", "Dockerfile.ubuntu2204")
SCRIPT = ROOT / "scripts/base_torch.py"


def instructions(name: str) -> list[str]:
    """Lines of a Dockerfile that are not comments."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def test_the_dockerfiles_differ_in_base_torch_and_one_requirement_only():
    difference = difflib.unified_diff(*map(instructions, DOCKERFILES), n=0, lineterm="")
    changed = [line for line in difference if not line.startswith(("---", "+++", "@@"))]
    patterns = (
        r"-ARG BASE_IMAGE=\S+ubuntu2004\S+",
        r"\+ARG BASE_IMAGE=\S+ubuntu2204\S+",
        r"-ARG LIFT_TORCH=yes",
        r"\+ARG LIFT_TORCH=no",
        r"\+RUN sed -i '/liblttng-ust0/d' /var/requirements/system_requirements\*\.txt",
    )
    assert len(changed) == len(patterns)
    for line, pattern in zip(changed, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize("name", DOCKERFILES)
def test_no_entrypoint_and_no_front_end_to_fetch(name: str):
    text = (ROOT / name).read_text("utf-8")
    assert "ENTRYPOINT" not in text
    assert "# syntax=" not in text


def test_compose_takes_the_recommended_dockerfile():
    text = (ROOT / "compose.yaml").read_text("utf-8")
    assert set(re.findall(r"dockerfile: (\S+)", text)) == {
        "${TUNECASK_DOCKERFILE:-Dockerfile.ubuntu2204}"
    }


def test_what_the_images_copy_is_allowed_into_the_build():
    allowed = {
        line[1:].removesuffix("/**")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = re.findall(
        r"^COPY (?:--chmod=\S+ )?(?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M
    )
    bound = re.findall(r"type=bind,source=([^,]+)", (ROOT / "Dockerfile").read_text())
    assert {word for line in copied for word in line.split()} | set(bound) == allowed


def judged(tmp_path: Path, version: str | None) -> subprocess.CompletedProcess[str]:
    """What the script says where that torch is installed."""
    if version:
        folder = tmp_path / f"torch-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        )
    code = (
        "import runpy, sys\n"
        f"sys.path = [{str(tmp_path)!r}, *(p for p in sys.path if 'site-packages' not in p)]\n"
        f"sys.argv = ['', {str(ROOT / 'pyproject.toml')!r}]\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    return subprocess.run(
        (sys.executable, "-S", "-c", code), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("version", ["2.8.0+cu126", "2.8.0a0+git1", "2.13.1", "2.10.0"])
def test_a_torch_in_the_range_becomes_a_constraint(tmp_path: Path, version: str):
    ended = judged(tmp_path, version)
    assert (ended.returncode, ended.stdout) == (0, f"torch=={version}\n")


@pytest.mark.parametrize("version", ["2.4.1+cu124", "2.7.1", "2.14.0", "3.0", None])
def test_another_torch_or_none_is_refused_with_the_way_out(tmp_path: Path, version: str | None):
    ended = judged(tmp_path, version)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert (f"torch {version}" if version else "no torch") in ended.stderr
    assert "2.8 or later, but less than 2.14" in ended.stderr
    assert "LIFT_TORCH=yes" in ended.stderr


def owner_of_process(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("sh", str(ROOT / "scripts/as-owner"), str(folder), *command),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_runs_as_it_is_for_a_user_who_owns_the_folder(tmp_path: Path):
    ended = owner_of_process(tmp_path, "sh", "-c", "id -u; exit 7")
    assert ended.returncode == 7
    assert int(ended.stdout) == tmp_path.stat().st_uid
