"""Every shipped template: found by walking the folder, rendered, and held against torchtune."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from entrypoint import templates
from entrypoint.command import ALONE, Command, tune_command
from entrypoint.methods import NOT_FOR_ROUNDED, TRAITS
from entrypoint.plan import RECIPE
from entrypoint.render import render
from entrypoint.settings import Method, Objective
from entrypoint.topology import Start, World
from entrypoint.tune import compat
from tests.unit.factories import WORLD, plan
from tests.unit.golden import check_golden

TEMPLATES = sorted(templates.folder().rglob(f"*{templates.SUFFIX}"))
GIVEN_BY_THE_RECIPE = {"params", "optimizer", "num_training_steps", "last_epoch", "tokenizer"}
"""Arguments that torchtune's recipes pass themselves."""


def objective_of(template: Path) -> Any:
    return template.name.removesuffix(templates.SUFFIX)


CASES = pytest.mark.parametrize(
    ("template", "method"),
    [
        pytest.param(template, method, id=f"{objective_of(template)}-{method}")
        for template in TEMPLATES
        for method in get_args(Method)
        if not (TRAITS[method].fake_quantized and objective_of(template) == NOT_FOR_ROUNDED)
    ],
)


def components(node: Any) -> list[dict]:
    """Every mapping with a `_component_`, at any depth."""
    if not isinstance(node, dict):
        return []
    inner = [found for value in node.values() for found in components(value)]
    return [node, *inner] if "_component_" in node else inner


@CASES
def test_rendered_recipe_is_the_golden_one(template: Path, method: Any):
    decided = plan(objective=objective_of(template), method=method)
    check_golden(
        f"recipes/{objective_of(template)}_{method}.yaml",
        render(templates.read(template), decided.variables),
    )


@CASES
def test_components_exist_and_take_the_arguments(template: Path, method: Any):
    compat.apply()
    from torchtune.config._utils import _get_component_from_path

    decided = plan(objective=objective_of(template), method=method, held_out=10, eval_every=5)
    found = components(yaml.safe_load(render(templates.read(template), decided.variables)))
    # distillation also has a teacher, its checkpointer and a second loss
    more = 3 if objective_of(template) == "kd" else 0
    assert len(found) == 9 + more + (decided.variables["quantizer"] is not None)
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


CONFIG = Path("/outputs/run/recipe.yaml")
NODES = dataclasses.replace(WORLD, processes=2, nodes=3)


def command(
    environ: dict[str, str] | None = None,
    allocator: Path | None = None,
    world: World = WORLD,
    start: Start = ALONE,
) -> Command:
    return tune_command(RECIPE, CONFIG, world, environ or {}, allocator, start)


def as_text(shown: Command) -> str:
    return "\n".join([*(f"{k}={v}" for k, v in shown.environment.items()), *shown.argv[1:], ""])


def test_the_command_is_the_golden_one():
    check_golden("command.txt", as_text(command()))


def test_the_command_of_a_node_is_the_golden_one():
    start = Start(rank=1, size=3, node=1, nodes=3, master=("node-0", 29500), interface="eth0")
    check_golden("command-node.txt", as_text(command(world=NODES, start=start)))


def test_an_allocator_is_preloaded_unless_the_user_preloads_one():
    found = Path("/usr/lib/libtcmalloc.so.4")
    assert command(allocator=found).environment["LD_PRELOAD"] == str(found)
    assert "LD_PRELOAD" not in command({"LD_PRELOAD": "x"}, found).environment
    assert "LD_PRELOAD" not in command().environment


def test_threads_are_no_more_than_a_containers_quota_lets_run():
    throttled = dataclasses.replace(WORLD, cores=3, throttled=True)
    assert command(world=throttled).environment["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in command().environment
    assert "OMP_NUM_THREADS" not in command({"OMP_NUM_THREADS": "9"}, world=throttled).environment


def test_a_variable_of_the_users_own_is_left_alone():
    assert "GLIBC_TUNABLES" not in command({"GLIBC_TUNABLES": "x"}).environment
    start = Start(nodes=3, interface="eth0")
    chosen = {"GLOO_SOCKET_IFNAME": "ib0", "OMP_NUM_THREADS": "7"}
    assert command(chosen, None, NODES, start).environment.keys().isdisjoint(chosen)
