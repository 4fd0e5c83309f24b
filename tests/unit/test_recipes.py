"""Every shipped template: found by walking the folder, rendered, and held against torchtune."""

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from entrypoint import templates
from entrypoint.command import tune_command
from entrypoint.render import render
from entrypoint.settings import Method, Objective
from entrypoint.tune import compat
from tests.unit.factories import plan
from tests.unit.golden import check_golden

TEMPLATES = sorted(templates.folder().rglob(f"*{templates.SUFFIX}"))
GIVEN_BY_THE_RECIPE = {"params", "optimizer", "num_training_steps", "last_epoch", "tokenizer"}
"""Arguments that torchtune's recipes pass themselves."""


def objective_of(template: Path) -> Any:
    return template.name.removesuffix(templates.SUFFIX)


def components(node: Any) -> list[dict]:
    """Every mapping with a `_component_`, at any depth."""
    if not isinstance(node, dict):
        return []
    inner = [found for value in node.values() for found in components(value)]
    return [node, *inner] if "_component_" in node else inner


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_rendered_recipe_is_the_golden_one(template: Path, method: Any):
    decided = plan(objective=objective_of(template), method=method)
    check_golden(
        f"recipes/{objective_of(template)}_{method}.yaml",
        render(templates.read(template), decided.variables),
    )


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_components_exist_and_take_the_arguments(template: Path, method: Any):
    compat.apply()
    from torchtune.config._utils import _get_component_from_path

    decided = plan(objective=objective_of(template), method=method, held_out=10, eval_every=5)
    found = components(yaml.safe_load(render(templates.read(template), decided.variables)))
    assert len(found) == 9
    for component in found:
        target = _get_component_from_path(component["_component_"])
        parameters = inspect.signature(target).parameters
        given = component.keys() - {"_component_"}
        assert given <= parameters.keys(), component["_component_"]
        if target.__name__.endswith("llama3_2"):
            continue  # the plan in this test carries two of the model's arguments
        required = {
            name
            for name, parameter in parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        }
        assert required <= given | GIVEN_BY_THE_RECIPE, component["_component_"]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_says_what_it_is_for(template: Path):
    header = templates.read(template).split("model:")[0]
    for word in ("What for", "Needs", "Launch", "Limits"):
        assert f"# {word}" in header


def test_every_objective_has_a_template():
    assert {objective_of(template) for template in TEMPLATES} == set(get_args(Objective))


def test_the_command_is_the_golden_one():
    command = tune_command(plan(), {})
    text = "\n".join([*(f"{k}={v}" for k, v in command.environment.items()), *command.argv[1:]])
    check_golden("command.txt", text + "\n")


def test_an_allocator_is_preloaded_unless_the_user_preloads_one():
    found = Path("/usr/lib/libtcmalloc.so.4")
    assert tune_command(plan(), {}, found).environment["LD_PRELOAD"] == str(found)
    assert "LD_PRELOAD" not in tune_command(plan(), {"LD_PRELOAD": "x"}, found).environment
    assert "LD_PRELOAD" not in tune_command(plan(), {}).environment


def test_a_variable_of_the_users_own_is_left_alone():
    assert "GLIBC_TUNABLES" not in tune_command(plan(), {"GLIBC_TUNABLES": "x"}).environment
