"""aml.yaml, variables and flags."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from entrypoint.errors import SettingsError
from scripts.aml.options import settings_options
from scripts.aml.settings import AmlSettings, read_file


def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *flags: str):
    """The settings that a command gets beside an aml.yaml."""
    (tmp_path / "aml.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    found: list[AmlSettings] = []

    @click.command()
    @settings_options
    def command(settings: AmlSettings) -> None:
        found.append(settings)

    result = CliRunner().invoke(command, flags)
    if result.exception:
        raise result.exception
    return found[0]


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("AML_NODES", "3")
    monkeypatch.setenv("AML_SIZE", "Standard_D4s_v3")
    monkeypatch.setenv("AZURE_WORKSPACE", "ours")
    text = "nodes: 2\nsize: Standard_D2s_v3\ncompute: gpus\ntags: {team: a, cost: b}\n"
    settings = collected(tmp_path, monkeypatch, text, "--nodes", "4")
    assert (settings.nodes, settings.size, settings.compute) == (4, "Standard_D4s_v3", "gpus")
    assert settings.workspace == "ours"
    assert settings.tags == ("team=a", "cost=b")
    assert settings.shm_size == "16g"


def test_variables_alone_are_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("AML_TAGS", "team=a, cost=b")
    monkeypatch.setenv("AML_INSTALL", "yes")
    settings = collected(tmp_path, monkeypatch, "")
    assert settings.tags == ("team=a", "cost=b")
    assert settings.install is True


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hf_token: x", "hf_token looks like a secret"),
        ("account_api_key: x", "account_api_key looks like a secret"),
        ("comput: x", "did you mean compute"),
        ("- a", "no list of `key: value`"),
        ("a: [", "cannot be read"),
        ("nodes: two", "nodes: 'two' is of the wrong type"),
        ("nodes: 0", "nodes: 0 is not in the range"),
        ("nodes: true", "nodes: True is of the wrong type"),
        ("install: 1", "install: 1 is of the wrong type"),
        ("compute: 7", "compute: 7 is of the wrong type"),
        ("tier: cheap", "tier: 'cheap' is not one of"),
        ("tags: 3", "tags: it is no mapping"),
    ],
)
def test_a_bad_file_is_refused_by_its_key(tmp_path, monkeypatch, text, complaint):
    with pytest.raises(SettingsError) as refused:
        collected(tmp_path, monkeypatch, text)
    assert complaint in str(refused.value)
    assert "aml.yaml" in str(refused.value.where)


def test_a_secret_in_the_file_is_not_repeated(tmp_path):
    path = tmp_path / "aml.yaml"
    path.write_text("hf_token: hf_canary_value")
    with pytest.raises(SettingsError) as refused:
        read_file(path)
    assert "hf_canary_value" not in str(refused.value)
