"""A model's chat template by itself. transformers has the same, and takes a second to import."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from entrypoint.data.rows import Conversation
from entrypoint.models.card import read_config
from entrypoint.models.companions import TEMPLATE_FILE, TEMPLATE_KEY_FILE, chat_template

TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Special tokens that a template may write by name."""


class Generation(Extension):
    """`{% generation %}` marks what the assistant says, and writes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Writes conversations out as the model reads them.

    Args:
        folder: with a chat template and tokenizer_config.json.

    Raises:
        TemplateError: there is none, or it is no template.
    """

    def __init__(self, folder: Path) -> None:
        config = read_config(folder / TEMPLATE_KEY_FILE)
        source = config.get("chat_template")
        if chat_template(folder) == TEMPLATE_FILE:
            source = (folder / TEMPLATE_FILE).read_text("utf-8")
        if isinstance(source, list):  # several, by name
            source = {one["name"]: one["template"] for one in source}.get("default")
        if not source:
            raise TemplateError("there is none")
        self._template: Template = _environment().from_string(source)
        self._tokens = {name: _text(config[name]) for name in TOKENS if config.get(name)}

    def render(self, conversation: Conversation) -> str:
        """The conversation with its tools as one text.

        Raises:
            TemplateError: the template refuses it.
        """
        messages, tools = conversation
        try:
            return self._template.render(messages=messages, tools=tools, **self._tokens)
        except (TypeError, ValueError) as error:
            raise TemplateError(str(error)) from error


def _text(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _environment() -> ImmutableSandboxedEnvironment:
    """What templates of the hub are written for. They are somebody else's code, so in a sandbox."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda how: datetime.now().strftime(how)
    return made


def _to_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    # Jinja's own writes for HTML
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


def _refuse(message: str) -> None:
    raise TemplateError(message)
