"""The tokenizer of `entrypoint.data.chat` as torchtune's data sets take one."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchtune.data import Message as TorchtuneMessage
from torchtune.modules.transforms import Transform

from entrypoint.data.chat import Chat, Encoded, Message, TrainOn


class ChatTokenizer(Transform):
    """Turns `{"messages": [...], "tools": [...]}`, or `{"text": ...}`, into token ids and a loss
    mask.

    The mask follows torchtune's convention: True where a token is *not* trained on.

    Args:
        path: a folder with tokenizer.json, and a chat template unless there are only texts.
        max_seq_len: tokens after which a conversation is cut; None keeps all.
        train_on: which assistant turns carry loss.

    Raises:
        ValueError: of conversations, when there is no chat template, or when it rewrites earlier
            turns, so that no place in the text belongs to one turn.
    """

    def __init__(
        self, path: str, max_seq_len: int | None = None, train_on: TrainOn = "all"
    ) -> None:
        self.chat = Chat(path, train_on)
        self.tokenizer = self.chat.tokenizer
        self.max_seq_len = max_seq_len

    @functools.cached_property
    def pad_id(self) -> int:
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        # without either, any serves: nothing is learned from padding, and no token sees it
        return next((token for token in known if token is not None), 0)

    def __call__(self, sample: Mapping[str, Any], inference: bool = False) -> dict[str, Any]:
        if "text" in sample:
            (encoded,) = self.chat.encode_documents([sample["text"]])
            return dict(zip(("tokens", "mask"), self._masked(encoded), strict=True))
        tokens, mask = self.tokenize(
            sample["messages"], tools=sample.get("tools"), add_generation_prompt=inference
        )
        return {"tokens": tokens, "mask": mask}

    def tokenize(
        self,
        messages: Sequence[Message],
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> tuple[list[int], list[bool]]:
        """Token ids and mask, both of the conversation's length (at most `max_seq_len`)."""
        (encoded,) = self.chat.encode([(messages, tools)], add_generation_prompt)
        return self._masked(encoded)

    def _masked(self, encoded: Encoded) -> tuple[list[int], list[bool]]:
        mask = [True] * len(encoded.ids)
        for start, end in encoded.trained:
            mask[start:end] = [False] * (end - start)
        return encoded.ids[: self.max_seq_len], mask[: self.max_seq_len]


class PromptTokenizer(ChatTokenizer):
    """The same for torchtune's `generate` recipe, which asks with torchtune's messages."""

    pad_id = -1
    """torchtune takes each token with this id for padding, and many models pad with the token that
    also ends a turn. A single prompt has no padding."""

    def __init__(self, path: str) -> None:
        # training goes without transformers
        from transformers import GenerationConfig

        super().__init__(path)
        ends: int | list[int] | None = self.tokenizer.eos_token_id
        if (Path(path) / "generation_config.json").is_file():
            ends = GenerationConfig.from_pretrained(path).eos_token_id or ends
        self.stop_tokens = ends if isinstance(ends, list) else [] if ends is None else [ends]

    def __call__(self, sample: Mapping[str, Any], inference: bool = False) -> dict[str, Any]:
        asked: list[TorchtuneMessage] = sample["messages"]
        # the empty answer at the end says that one is wanted
        plain = [{"role": one.role, "content": one.text_content} for one in asked[:-1]]
        return super().__call__({"messages": plain}, inference)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text, with the tokens that mark turns."""
        return str(self.tokenizer.decode(tokens))
