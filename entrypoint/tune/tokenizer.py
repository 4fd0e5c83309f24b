"""A chat tokenizer for any Hugging Face folder: its own template, a loss mask by role."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torchtune.modules.transforms import Transform
from transformers import AutoTokenizer, PreTrainedTokenizerBase

Message = Mapping[str, Any]
TrainOn = Literal["last", "all"]


class ChatTokenizer(Transform):
    """Turns `{"messages": [...]}` into token ids and a loss mask, for torchtune's data sets.

    The conversation is rendered by the model's own chat template and tokenised once, as a whole,
    so the ids equal those of `apply_chat_template`. The mask follows torchtune's convention:
    True where a token is *not* trained on. Trained are the assistant's turns with their
    end-of-turn token, all of them or only the last.

    Args:
        path: a folder with tokenizer.json and a chat template.
        max_seq_len: tokens after which a conversation is cut; None keeps all.
        train_on: which assistant turns carry loss.

    Raises:
        ValueError: the folder has no chat template, or the template rewrites earlier turns, so
            that no place in the text belongs to one turn.
    """

    def __init__(
        self, path: str, max_seq_len: int | None = None, train_on: TrainOn = "all"
    ) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
        if self.tokenizer.chat_template is None:
            raise ValueError(f"{path} has no chat template (chat_template.jinja)")
        self.max_seq_len = max_seq_len
        self.train_on = train_on

    @functools.cached_property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    def __call__(self, sample: Mapping[str, Any], inference: bool = False) -> dict[str, Any]:
        tokens, mask = self.tokenize(sample["messages"], add_generation_prompt=inference)
        return {"tokens": tokens, "mask": mask}

    def tokenize(
        self, messages: Sequence[Message], add_generation_prompt: bool = False
    ) -> tuple[list[int], list[bool]]:
        """Token ids and mask, both of the conversation's length (at most `max_seq_len`)."""
        text = self._render(messages, add_generation_prompt)
        spans = self._trained_spans(messages, text)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        mask = [
            not any(start < span_end and end > span_start for span_start, span_end in spans)
            for start, end in encoded["offset_mapping"]
        ]
        return encoded["input_ids"][: self.max_seq_len], mask[: self.max_seq_len]

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        rendered = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return str(rendered)

    def _trained_spans(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """Character ranges [start, end) of `text` that carry loss.

        A turn reaches from what the template writes before it, prompt included, to what it has
        written after it; white space behind the end-of-turn token is not the model's to learn.
        """
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        spans = []
        for index in turns if self.train_on == "all" else turns[-1:]:
            before = self._render(messages[:index], add_generation_prompt=True)
            through = self._render(messages[: index + 1])
            if not (through.startswith(before) and text.startswith(through.rstrip())):
                raise ValueError(
                    f"the chat template writes turn {index + 1} differently in mid-conversation; "
                    "no loss mask by role can be made with it"
                )
            spans.append((len(before), len(through.rstrip())))
        return spans
