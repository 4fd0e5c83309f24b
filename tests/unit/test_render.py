"""entrypoint.render: templates, overrides and their errors."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from entrypoint.errors import SettingsError
from entrypoint.render import render

TEMPLATE = """
model: {_component_: a.b, rank: {{ rank | tojson }}}
tokenizer: {path: {{ path | tojson }}}
checkpointer: {dir: x}
dataset: {file: y}
optimizer: {lr: 2e-3}
loss: {_component_: c.d}
"""
VALUES = {"rank": 8, "path": "p"}


def rendered(*overrides: str) -> dict:
    return yaml.safe_load(render(TEMPLATE, VALUES, overrides))


def test_values_and_numbers_come_out_typed():
    recipe = rendered()
    assert recipe["model"] == {"_component_": "a.b", "rank": 8}
    # PyYAML reads 2e-3 as text; torchtune's reader, and so ours, reads a number
    assert recipe["optimizer"]["lr"] == 0.002


@given(st.text())
@example("${")
def test_any_text_survives_the_template(text: str):
    try:
        recipe = yaml.safe_load(render(TEMPLATE, {"rank": 1, "path": text}))
    except SettingsError:
        # OmegaConf's own syntax: "${" starts an interpolation, in torchtune's reader too
        assert "${" in text
        return
    assert recipe["tokenizer"]["path"] == text


@pytest.mark.parametrize(
    ("override", "keys", "value"),
    [
        ("model.rank=16", ("model", "rank"), 16),
        ("optimizer.lr=1e-4", ("optimizer", "lr"), 1e-4),
        ("dataset.file=null", ("dataset", "file"), None),
        ("model=[1,2]", ("model",), [1, 2]),
        ("+optimizer.betas=[0.9,0.95]", ("optimizer", "betas"), [0.9, 0.95]),
        ("+new.deep=true", ("new", "deep"), True),
        ("dataset.file=a=b", ("dataset", "file"), "a=b"),
    ],
)
def test_an_override_sets_its_key(override: str, keys: tuple[str, ...], value: object):
    found = rendered(override)
    for key in keys:
        found = found[key]
    assert found == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "no key optimizer.lrr; did you mean optimizer.lr?"),
        ("nothing.like.it=1", "no key nothing.like.it"),
        ("optimizer.lr", "key=value"),
        ("=1", "key=value"),
        ("optimizer.lr=[1", "cannot be read as YAML"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str):
    with pytest.raises(SettingsError, match="--set") as error:
        rendered(override)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("model: {{ modl }}", "'modl' is undefined"),
        ("model: {{ rank", "not valid Jinja"),
        ("model: [1", "not valid YAML"),
        ("just text", "lacks model"),
        ("[1, 2]", "not a mapping"),
        ("model: 1", "lacks tokenizer"),
        ("{{ ''.__class__.__mro__ }}", "forbidden"),
        ("{{ rank.missing }}", "does not exist"),
        ("{% include 'other' %}", "cannot be filled in"),
        ("{{ rank / 0 }}", "cannot be filled in"),
        ("{{ rank + path }}", "cannot be filled in"),
        ("model: \x01", "cannot be read"),
        ("model: ${rank", "cannot be read"),
        (TEMPLATE.replace("dir: x", "dir: '${nowhere}'"), "'nowhere' not found"),
    ],
)
def test_a_broken_template_is_named(template: str, message: str):
    with pytest.raises(SettingsError) as error:
        render(template, VALUES, name="mine.yaml.j2")
    assert message in str(error.value)
    assert "mine.yaml.j2" in str(error.value)
