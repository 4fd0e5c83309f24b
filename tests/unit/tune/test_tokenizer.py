"""entrypoint.tune.tokenizer: ids and mask of a conversation."""

from pathlib import Path

import pytest

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
    expected = tokenizer.tokenizer.apply_chat_template(CONVERSATION, return_dict=True)["input_ids"]
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
