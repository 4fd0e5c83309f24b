"""From a template and values to the YAML that torchtune reads. Pure."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.sandbox
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from entrypoint.errors import SettingsError

REQUIRED_KEYS = ("model", "tokenizer", "checkpointer", "dataset", "optimizer", "loss")


def render(
    template: str, variables: Mapping[str, Any], overrides: Iterable[str] = (), *, name: str = "recipe"
) -> str:
    """The recipe as YAML text.

    Args:
        template: Jinja text; values go through `tojson`, an undefined name is an error.
        variables: the values.
        overrides: `key=value` with a dotted key of the rendered recipe and a YAML value;
            `+key=value` adds a key that the recipe does not have.
        name: what to call the template in errors.

    Raises:
        SettingsError: the template or an override is not valid; names line or key.
    """
    recipe = _parse(_fill(template, variables, name), name)
    for override in overrides:
        _apply(recipe, override)
    return OmegaConf.to_yaml(recipe)


def _fill(template: str, variables: Mapping[str, Any], name: str) -> str:
    environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    try:
        return environment.from_string(template).render(variables)
    except jinja2.UndefinedError as error:
        raise SettingsError(
            f"the template uses a name that does not exist: {error.message}",
            where=name,
            hint=f"the names are: {', '.join(sorted(variables))}",
        ) from error
    except jinja2.TemplateSyntaxError as error:
        raise SettingsError(
            f"the template is not valid Jinja: {error.message}", where=f"{name}, line {error.lineno}"
        ) from error
    except jinja2.sandbox.SecurityError as error:
        raise SettingsError(f"the template does something forbidden: {error}", where=name) from error


def _parse(text: str, name: str) -> DictConfig:
    try:
        recipe = OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1} when rendered" if error.problem_mark else ""
        raise SettingsError(
            f"the rendered recipe is not valid YAML: {error.problem}", where=f"{name}{line}"
        ) from error
    if not isinstance(recipe, DictConfig):
        raise SettingsError("the rendered recipe is not a mapping of keys", where=name)
    if missing := [key for key in REQUIRED_KEYS if key not in recipe]:
        raise SettingsError(f"the recipe lacks {', '.join(missing)}", where=name)
    return recipe


def _apply(recipe: DictConfig, override: str) -> None:
    where = f"--set {override}"
    key, equals, value = override.partition("=")
    adds = key.startswith("+")
    key = key.removeprefix("+").strip()
    if not key or not equals:
        raise SettingsError("an override is written key=value", where=where)
    if not adds and key not in (known := _dotted_keys(recipe)):
        nearest = difflib.get_close_matches(key, known, n=1)
        raise SettingsError(
            f"the recipe has no key {key}" + (f"; did you mean {nearest[0]}?" if nearest else ""),
            where=where,
            hint=f"to add it all the same, write --set +{override}",
        )
    try:
        parsed = OmegaConf.create(f"value: {value}")
        OmegaConf.update(recipe, key, parsed.value, force_add=adds)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise SettingsError(f"the value cannot be read as YAML: {error}", where=where) from error


def _dotted_keys(node: Any, prefix: str = "") -> Sequence[str]:
    """Every key of the recipe, inner ones too: `model`, `model.lora_rank`, …"""
    keys: list[str] = []
    if isinstance(node, DictConfig):
        for key in node:
            dotted = f"{prefix}{key}"
            keys += [dotted, *_dotted_keys(node._get_node(key), f"{dotted}.")]
    return keys
