"""entrypoint.data.chat_template: what it writes is what transformers writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from entrypoint.data.chat_template import ChatTemplate

MESSAGES = [
    {"role": "user", "content": "Is it < 5 °C in Oslo?"},
    {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "5 is plenty",
        "tool_calls": [{"name": "weather", "place": "Ålesund"}],
    },
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "No"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
TEMPLATE = """
{%- if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{{ bos_token }}{{ strftime_now("%Y") }}
{% for message in messages %}
    {% if message.content == "never" %}{% continue %}{% endif %}
    {%- if documents is defined %}{{ documents }}{% endif %}
    {%- if message.role == "assistant" %}{{ message.thinking }}{{ message.reasoning_content }}
        {% generation %}
{{ message.content }}{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}
{{ eos_token }}
        {%- endgeneration %}
    {% else %}
{{ message.role }}: {{ message.content }}
    {%- endif %}
{% endfor %}
{% if add_generation_prompt %}go{% endif %}{{ cls_token }}{{ sep_token is defined }}
"""


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """Of a tokenizer that may be changed."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def named(folder: Path, **changes: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_conversations_are_written_as_by_transformers(
    template: str | None, tools: list[Any] | None, folder: Path
):
    if template:
        (folder / "chat_template.jinja").write_text(template)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = tokenizer.apply_chat_template(MESSAGES, tools=tools, tokenize=False)
    assert ChatTemplate.of(folder).render((MESSAGES, tools)) == expected


def test_a_template_may_be_in_the_tokenizers_settings(folder: Path):
    named(folder, chat_template=TEMPLATE)
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(MESSAGES, tokenize=False)
    assert ChatTemplate.of(folder).render((MESSAGES, None)) == expected
    both = [{"name": "rag", "template": "x"}, {"name": "default", "template": TEMPLATE}]
    (folder / "chat_template.jinja").touch()
    named(folder, chat_template=both)
    assert ChatTemplate.of(folder).render((MESSAGES, None)) == expected


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no') }}", "{{ messages[0].content + 1 }}", "{{ a.b.c }}"]
)
def test_what_a_template_refuses_is_a_template_error(template: str, folder: Path):
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(TemplateError):
        ChatTemplate.of(folder).render((MESSAGES, None))


def test_without_a_template_there_is_nothing_to_write_with(folder: Path):
    named(folder)
    with pytest.raises(TemplateError):
        ChatTemplate.of(folder)
