"""From a template and values to the YAML that torchtune reads. Pure."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.sandbox
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from entrypoint.errors import SettingsError

NOT_PRINTABLE_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
OF_EXPRESSIONS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What an expression of a template may raise."""
REQUIRED_KEYS = ("model", "tokenizer", "checkpointer", "dataset", "optimizer", "loss")


def check_agreement(
    recipe: str, decided: Mapping[str, Any], option_of_key: Mapping[str, str], *, name: str
) -> None:
    """Make sure that a rendered recipe does what the plan says.

    Args:
        recipe: YAML text of `render`.
        decided: dotted key -> the plan's value; a key that the recipe lacks is no disagreement.
        option_of_key: dotted key -> the option to set it with.

    Raises:
        SettingsError: a template or an override gives a key another value.
    """
    found = OmegaConf.create(recipe)
    for key, value in decided.items():
        given = OmegaConf.select(found, key, default=value)
        given = OmegaConf.to_object(given) if OmegaConf.is_config(given) else given
        if given != value:
            raise SettingsError(
                f"the recipe says {key}: {given}, the plan says {value}",
                where=name,
                hint=f"set it with {option_of_key[key]}; a template takes the plan's value",
            )


def render(
    template: str,
    variables: Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    name: str = "recipe",
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
    try:
        OmegaConf.to_container(recipe, resolve=True)
    except OmegaConfBaseException as error:
        raise SettingsError(
            f"the recipe refers to what is not there: {str(error).splitlines()[0]}", where=name
        ) from error
    return OmegaConf.to_yaml(recipe)


def _fill(template: str, variables: Mapping[str, Any], name: str) -> str:
    environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_function"] = _yaml_json
    environment.policies["json.dumps_kwargs"] = {}
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
            f"the template is not valid Jinja: {error.message}",
            where=f"{name}, line {error.lineno}",
        ) from error
    except jinja2.exceptions.SecurityError as error:
        raise SettingsError(
            f"the template does something forbidden: {error}", where=name
        ) from error
    except (jinja2.TemplateError, *OF_EXPRESSIONS) as error:
        raise SettingsError(
            f"the template cannot be filled in: {error}",
            where=name,
            hint="it holds values and structure alone: nothing is included, and no file is read",
        ) from error


def _yaml_json(value: Any) -> str:
    """JSON that YAML reads as the same value. Plain JSON writes characters beyond 16 bits as two
    escapes, which YAML refuses; written out, a few others would be refused or folded instead."""
    return NOT_PRINTABLE_IN_YAML.sub(
        lambda found: f"\\u{ord(found.group()):04x}", json.dumps(value, ensure_ascii=False)
    )


def _parse(text: str, name: str) -> DictConfig:
    try:
        recipe = OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1} when rendered" if error.problem_mark else ""
        raise SettingsError(
            f"the rendered recipe is not valid YAML: {error.problem}", where=f"{name}{line}"
        ) from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise SettingsError(
            f"the rendered recipe cannot be read: {str(error).splitlines()[0]}", where=name
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
        OmegaConf.update(recipe, key, parsed.value, merge=False, force_add=adds)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise SettingsError(f"the value cannot be read as YAML: {error}", where=where) from error


def _dotted_keys(node: Any, prefix: str = "") -> Sequence[str]:
    """Every key of the recipe, inner ones too: `model`, `model.lora_rank`, …"""
    keys: list[str] = []
    if isinstance(node, DictConfig):
        for key in node:
            dotted = f"{prefix}{key!s}"
            keys += [dotted, *_dotted_keys(node._get_node(key), f"{dotted}.")]
    return keys
