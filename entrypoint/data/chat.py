"""Conversations as tokens: the model's own chat template, and which tokens carry loss."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from entrypoint.data.chat_template import ChatTemplate
from entrypoint.data.rows import Conversation
from entrypoint.data.tokenizer import load
from entrypoint.errors import ModelError
from entrypoint.models.card import read_config

Message = Mapping[str, Any]
TrainOn = Literal["last", "all"]
Span = tuple[int, int]


class RewritesTurns(ValueError):
    """The chat template writes a turn differently when others follow it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """One conversation as tokens."""

    text: str
    ids: list[int]
    trained: tuple[Span, ...]
    """Ranges [start, end) of tokens that carry loss."""

    def trained_within(self, limit: int | None) -> int:
        """How many tokens carry loss when the conversation is cut to `limit` tokens."""
        stop = len(self.ids) if limit is None else limit
        return sum(max(min(end, stop) - start, 0) for start, end in self.trained)


class Chat:
    """Writes conversations out with a model's chat template and tokenises them.

    A conversation is rendered and tokenised once, as a whole, so the ids equal those of
    `apply_chat_template`. Trained are the assistant's turns with their end-of-turn token.

    Args:
        path: a folder with tokenizer.json, and a chat template unless there are only texts.
        train_on: which assistant turns carry loss.
        environ: names the cache, where a tokenizer that was met before is remembered.
    """

    def __init__(
        self,
        path: str,
        train_on: TrainOn = "all",
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.tokenizer = load(Path(path), environ)
        self.train_on = train_on
        self._vocabulary = _smaller_vocabulary(Path(path), len(self.tokenizer))

    def render(
        self,
        messages: Sequence[Message],
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as the model reads it.

        Raises:
            ValueError: the tokenizer has no chat template.
            TemplateError: the template refuses it.
        """
        if self.tokenizer.chat_template is None:
            raise ValueError("the model has no chat template (chat_template.jinja)")
        template = ChatTemplate(self.tokenizer.chat_template, self.tokenizer.special_tokens_map)
        return template.render((messages, tools), add_generation_prompt=add_generation_prompt)

    def encode(
        self, conversations: Sequence[Conversation], add_generation_prompt: bool = False
    ) -> list[Encoded]:
        """Tokens of many conversations, each with its tools.

        Raises:
            ValueError: the template refuses one of them.
            RewritesTurns: no place in the text belongs to one turn.
        """
        return self.encode_texts(*self.render_all(conversations, add_generation_prompt))

    def render_all(
        self, conversations: Sequence[Conversation], add_generation_prompt: bool = False
    ) -> tuple[list[str], list[list[Span]]]:
        """Conversations as the model reads them, with the ranges of characters that carry loss.

        Raises:
            ValueError: the template refuses one of them.
            RewritesTurns: no place in the text belongs to one turn.
        """
        texts, spans = [], []
        for messages, tools in conversations:
            try:
                text = self.render(messages, tools, add_generation_prompt)
                spans.append(self._spans(messages, tools, text))
            except TemplateError as error:
                raise ValueError(f"the chat template refuses it: {error}") from error
            texts.append(text)
        return texts, spans

    def encode_texts(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Encoded]:
        """Tokens of conversations that are written out; the tokenizer works on all cores.

        Args:
            spans: ranges of characters that carry loss.

        Raises:
            ModelError: the model has no such token.
        """
        # not __call__, which makes lists of much that nobody reads
        found = self.tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
        self._check_known([encoding.ids for encoding in found])
        return [
            Encoded(
                text=text,
                ids=encoding.ids,
                trained=tuple(_tokens_of(encoding, start, end) for start, end in spans[row]),
            )
            for row, (text, encoding) in enumerate(zip(texts, found, strict=True))
        ]

    def encode_documents(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokens of texts that are no conversations, with what the tokenizer puts around any text
        and its end-of-text token behind. All carry loss but the first, which nothing foretells."""
        found = self.tokenizer.backend.encode_batch(list(texts))
        self._check_known([encoding.ids for encoding in found])
        encoded = []
        for text, encoding in zip(texts, found, strict=True):
            ids, end = encoding.ids, self.tokenizer.eos_token_id
            if end is not None and ids[-1:] != [end]:
                ids = [*ids, end]
            encoded.append(Encoded(text=text, ids=ids, trained=((1, len(ids)),)))
        return encoded

    def _check_known(self, sequences: Sequence[Sequence[int]]) -> None:
        if self._vocabulary is None:
            return
        highest = max((max(ids, default=0) for ids in sequences), default=0)
        if highest >= self._vocabulary:
            raise ModelError(
                f"the tokenizer writes {self.tokenizer.backend.id_to_token(highest)} as token "
                f"{highest:,}, and the model has {self._vocabulary:,} tokens",
                where=self.tokenizer.folder,
                hint="give the model more of them (transformers: resize_token_embeddings), or take "
                "the tokenizer that it came with",
            )

    def _spans(self, messages: Sequence[Message], tools: list[Any] | None, text: str) -> list[Span]:
        """Ranges of `text` that carry loss.

        A turn reaches from what the template writes before it, prompt included, to what it has
        written after it; white space behind the end-of-turn token is not the model's to learn.
        """
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        spans = []
        for index in turns if self.train_on == "all" else turns[-1:]:
            if not carries_loss(messages[index]):
                continue
            before = self.render(messages[:index], tools, add_generation_prompt=True)
            is_last = index == len(messages) - 1
            through = text if is_last else self.render(messages[: index + 1], tools)
            if not (through.startswith(before) and text.startswith(through.rstrip())):
                raise RewritesTurns(
                    f"the chat template writes turn {index + 1} differently in mid-conversation; "
                    "no loss mask by role can be made with it"
                )
            spans.append((len(before), len(through.rstrip())))
        return spans


def carries_loss(message: Message) -> bool:
    """Whether the message's own `weight`, if it has one, is not zero."""
    return str(message.get("weight", 1)).lower() not in ("0", "0.0", "false")


def _smaller_vocabulary(folder: Path, tokens: int) -> int | None:
    """How many tokens the model has, when that is fewer than its tokenizer's."""
    config = folder / "config.json"
    known = read_config(config).get("vocab_size") if config.is_file() else None
    return known if isinstance(known, int) and known < tokens else None


def _tokens_of(encoding: Any, start: int, end: int) -> Span:
    """The range of tokens that lie in a range of characters, those that reach into it included."""
    first = next(
        (token for at in range(start, end) if (token := encoding.char_to_token(at)) is not None),
        None,
    )
    if first is None:
        return (0, 0)
    last = next(
        token
        for at in range(end - 1, start - 1, -1)
        if (token := encoding.char_to_token(at)) is not None
    )
    count = len(encoding.ids)
    # a character may be several tokens, of which the first was found
    while last + 1 < count and encoding.token_to_chars(last + 1)[0] < end:
        last += 1
    while first > 0 and encoding.token_to_chars(first - 1)[1] > start:
        first -= 1
    return (first, last + 1)
