"""A model's chat template by itself. transformers has the same, and takes a second to import."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """Writes conversations out as the model reads them.

    Args:
        source: the template, or several by name.
        tokens: special ones by the names that a template may call them.
    """

    source: str | Mapping[str, str]
    tokens: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> "ChatTemplate":
        """That of a folder with tokenizer_config.json.

        Raises:
            TemplateError: there is none.
        """
        config = read_config(folder / TEMPLATE_KEY_FILE)
        source = config.get("chat_template")
        if chat_template(folder) == TEMPLATE_FILE:
            source = (folder / TEMPLATE_FILE).read_text("utf-8")
        if isinstance(source, list):
            source = {one["name"]: one["template"] for one in source}
        if not source:
            raise TemplateError("there is none")
        return cls(source, {name: _text(config[name]) for name in TOKENS if config.get(name)})

    def render(self, conversation: Conversation, *, add_generation_prompt: bool = False) -> str:
        """The conversation with its tools as one text.

        Raises:
            TemplateError: the template refuses it, is no template, or there is none for it.
        """
        messages, tools = conversation
        try:
            return _compiled(self._source(tools)).render(
                messages=[_thinking(message) for message in messages],
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.tokens,
            )
        except (TypeError, ValueError) as error:
            raise TemplateError(str(error)) from error

    def _source(self, tools: Sequence[Any] | None) -> str:
        if isinstance(self.source, str):
            return self.source
        for name in ("tool_use",) * (tools is not None) + ("default",):
            if name in self.source:
                return self.source[name]
        raise TemplateError(f"of several, none is the default: {', '.join(self.source)}")


def _thinking(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message, its reasoning under each of the names that templates know."""
    reasoning = message.get("reasoning_content")
    return message if reasoning is None else {"thinking": reasoning, **message}


def _text(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


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
