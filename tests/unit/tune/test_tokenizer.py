"""entrypoint.tune.tokenizer: ids and mask of a conversation."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from entrypoint.errors import ModelError
from entrypoint.tune import compat

compat.apply()

from entrypoint.tune.tokenizer import ChatTokenizer  # noqa: E402

CONVERSATION = [
    {"role": "system", "content": "Reply in JSON."},
    {"role": "user", "content": "Oslo, € 5 — naïve?"},
    {"role": "assistant", "content": '{"place":"Oslo"}'},
    {"role": "user", "content": "Again."},
    {"role": "assistant", "content": "{}"},
]


def trained_text(tokenizer: ChatTokenizer, messages: list) -> str:
    tokens, mask = tokenizer.tokenize(messages)
    assert len(tokens) == len(mask)
    return tokenizer.tokenizer.decode(
        [token for token, masked in zip(tokens, mask, strict=True) if not masked]
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer(str(tiny_model))


def test_ids_are_those_of_the_chat_template(tokenizer: ChatTokenizer):
    tokens, _ = tokenizer.tokenize(CONVERSATION)
    theirs = AutoTokenizer.from_pretrained(tokenizer.tokenizer.folder)
    expected = theirs.apply_chat_template(CONVERSATION, return_dict=True)["input_ids"]
    assert tokens == expected


@pytest.mark.parametrize(
    ("train_on", "text"),
    [("all", '{"place":"Oslo"}<|im_end|>{}<|im_end|>'), ("last", "{}<|im_end|>")],
)
def test_answers_and_their_ends_are_trained(tiny_model: Path, train_on, text: str):
    assert trained_text(ChatTokenizer(str(tiny_model), train_on=train_on), CONVERSATION) == text


def test_a_long_row_is_cut(tiny_model: Path, tokenizer: ChatTokenizer):
    short = ChatTokenizer(str(tiny_model), max_seq_len=7)
    assert short.tokenize(CONVERSATION)[0] == tokenizer.tokenize(CONVERSATION)[0][:7]


def test_inference_ends_with_the_prompt(tokenizer: ChatTokenizer):
    tokens = tokenizer({"messages": CONVERSATION[:2]}, inference=True)["tokens"]
    assert tokenizer.tokenizer.decode(tokens).endswith("<|im_start|>assistant\n")


def test_a_template_that_rewrites_earlier_turns_is_refused(tiny_model: Path):
    tokenizer = ChatTokenizer(str(tiny_model))
    tokenizer.tokenizer.chat_template = "{{ messages | length }}{{ messages[-1]['content'] }}"
    with pytest.raises(ValueError, match="no loss mask by role"):
        tokenizer.tokenize(CONVERSATION)


def test_without_a_template_there_are_texts_alone(tiny_model: Path, tmp_path: Path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    tokenizer = ChatTokenizer(str(tmp_path), max_seq_len=8)
    with pytest.raises(ValueError, match="no chat template"):
        tokenizer({"messages": CONVERSATION})
    assert tokenizer({"text": "Oslo"})["tokens"][-1] == tokenizer.tokenizer.eos_token_id
    cut = tokenizer({"text": "Oslo " * 20})
    assert len(cut["tokens"]) == len(cut["mask"]) == 8
    assert tokenizer.tokenizer.eos_token_id not in cut["tokens"]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "rooms",
            "description": "Free rooms of a town.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
        },
    }
]
WITH_TOOLS = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "A room in Oslo?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": "rooms", "arguments": {"town": "Oslo"}}}
        ],
    },
    {"role": "tool", "content": '{"free": 4}'},
    {"role": "assistant", "content": "Four are free."},
]
TEMPLATES = {
    "chatml": """
        {%- if tools %}{{ '<|im_start|>system\n' }}
        {%- if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}
        {%- for tool in tools %}{{ tool | tojson + '\n' }}{% endfor %}{{ '<|im_end|>\n' }}
        {%- elif messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}
        {%- for message in messages if message.role != 'system' %}
        {{- '<|im_start|>' + message.role + '\n' + message.content }}
        {%- for call in message.tool_calls or [] %}
        {{- '<call>' + call.function | tojson + '</call>' }}{% endfor %}{{ '<|im_end|>\n' }}
        {%- endfor %}
        {%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "headers": """
        {{- bos_token }}
        {%- for message in messages %}
        {{- '[' + message.role + ']\n\n' }}
        {%- if loop.index0 == 1 and tools %}{{ tools | tojson(indent=4) + '\n\n' }}{% endif %}
        {%- if message.tool_calls %}{{ message.tool_calls[0].function | tojson }}
        {%- else %}{{ message.content | trim }}{% endif %}{{ eos_token }}
        {%- endfor %}
        {%- if add_generation_prompt %}{{ '[assistant]\n\n' }}{% endif %}""",
    "instructions": """
        {{- bos_token }}
        {%- set first = namespace(text='') %}
        {%- for message in messages %}
        {%- if message.role == 'system' %}{% set first.text = message.content + '\n\n' %}
        {%- elif message.role == 'assistant' %}
        {{- ' ' + (message.tool_calls | tojson if message.tool_calls else message.content) }}
        {{- eos_token }}
        {%- else %}{{ '[INST] ' + first.text + message.content + ' [/INST]' }}
        {%- set first.text = '' %}{% endif %}
        {%- endfor %}""",
}
ANSWERS = {
    "chatml": (
        '<call>{"name": "rooms", "arguments": {"town": "Oslo"}}</call><|im_end|>',
        "Four are free.<|im_end|>",
    ),
    "headers": (
        '{"name": "rooms", "arguments": {"town": "Oslo"}}<|im_end|>',
        "Four are free.<|im_end|>",
    ),
    "instructions": (
        # a template that has no place for tools writes the calls all the same
        f" [{json.dumps(WITH_TOOLS[2]['tool_calls'][0])}]<|im_end|>",
        " Four are free.<|im_end|>",
    ),
}


@pytest.mark.parametrize("style", TEMPLATES)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
def test_tools_and_system_messages_reach_every_kind_of_template(
    tiny_model: Path, style: str, tools: list | None
):
    """Ids as apply_chat_template gives them, and of the turns only the assistant's are trained."""
    for train_on in ("all", "last"):
        tokenizer = ChatTokenizer(str(tiny_model), train_on=train_on)
        tokenizer.tokenizer.chat_template = TEMPLATES[style]
        encoded = tokenizer({"messages": WITH_TOOLS, "tools": tools})
        theirs = AutoTokenizer.from_pretrained(tiny_model)
        theirs.chat_template = TEMPLATES[style]
        expected = theirs.apply_chat_template(WITH_TOOLS, tools=tools, return_dict=True)[
            "input_ids"
        ]
        assert encoded["tokens"] == expected
        text = tokenizer.tokenizer.decode(expected)
        assert "Be brief." in text
        assert ("Free rooms" in text) == (tools is not None and style != "instructions")
        trained = tokenizer.tokenizer.decode(
            [
                token
                for token, masked in zip(encoded["tokens"], encoded["mask"], strict=True)
                if not masked
            ]
        )
        assert trained == "".join(ANSWERS[style] if train_on == "all" else ANSWERS[style][1:])


def test_what_a_tokenizer_was_last_used_for_changes_nothing(
    tiny_model: Path, tokenizer: ChatTokenizer, tmp_path: Path
):
    """A tokenizer.json that was saved with padding and truncation."""
    used = Path(shutil.copytree(tiny_model, tmp_path / "used"))
    path = used / "tokenizer.json"
    saved = json.loads(path.read_text())
    saved["truncation"] = {
        "direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    saved["padding"] = {
        "strategy": {"Fixed": 512}, "direction": "Left", "pad_to_multiple_of": None,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "<|im_end|>",
    }  # fmt: skip
    path.write_text(json.dumps(saved))
    tokens, mask = ChatTokenizer(str(used)).tokenize(CONVERSATION)
    assert (tokens, mask) == tokenizer.tokenize(CONVERSATION)


def test_a_token_that_the_model_lacks_is_named(tiny_model: Path, tmp_path: Path):
    """Of tokens that were added to the tokenizer alone, those that are used matter."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "more"))
    path = folder / "tokenizer.json"
    saved = json.loads(path.read_text())
    added = {**saved["added_tokens"][0], "id": 600, "content": "<|call|>"}
    path.write_text(json.dumps(saved | {"added_tokens": [*saved["added_tokens"], added]}))
    tokenizer = ChatTokenizer(str(folder))
    tokenizer.tokenize(CONVERSATION)
    with pytest.raises(ModelError, match=r"writes <\|call\|> as token \d+, and the model has 512"):
        tokenizer.tokenize([*CONVERSATION[:-1], {"role": "assistant", "content": "<|call|>"}])
    with pytest.raises(ModelError, match="resize_token_embeddings"):
        tokenizer.chat.encode_documents(["a", "b <|call|>"])
