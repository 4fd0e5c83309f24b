"""The targets of the Makefile, README's lines about them, and what is told to Azure ML."""

import re

import pytest

from scripts.aml import cloud, workspace
from scripts.aml.cli import aml
from scripts.aml.snapshot import ROOT

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = re.findall(r"^(aml-[a-z]+):", MAKEFILE, re.M)


def test_every_command_has_a_target():
    assert {f"aml-{name}" for name in aml.commands} == set(TARGETS) - {"aml-test"}
    assert set(cloud.COMMANDS) < set(aml.commands.values())


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "aml-test"])
def test_every_target_has_help_and_a_line_in_readme(target: str):
    assert re.search(rf"^{target}:.* ## \S", MAKEFILE, re.M)
    assert f"`make {target}`" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://user:ghp_canary@host/a.git", "https://host/a.git"),
        ("https://ghp_canary@host/a.git", "https://host/a.git"),
        ("git@host:a.git", "git@host:a.git"),
        (None, "unknown"),
    ],
)
def test_the_address_of_a_checkout_is_told_without_a_password(monkeypatch, address, told):
    monkeypatch.setattr(workspace, "git_address", lambda _: address)
    assert workspace.public_address() == told
