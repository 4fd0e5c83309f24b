"""torchtune's own tokenizers, for models that have only a sentencepiece or tiktoken file."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torchtune.config._utils import _get_component_from_path
from torchtune.data import Message
from torchtune.modules.transforms import Transform

from entrypoint.data.chat import carries_loss


class NativeTokenizer(Transform):
    """Does what ChatTokenizer does, with one of torchtune's tokenizers.

    Conversations are written out as that tokenizer does it: by the prompt template that is its
    default, or another one of torchtune's.

    Args:
        component: import path of the tokenizer.
        path: its file.
        max_seq_len: tokens after which a conversation is cut; None keeps all.
        train_on: which assistant turns carry loss.
        options: more arguments of the tokenizer, `prompt_template` for one.
    """

    def __init__(
        self,
        component: str,
        path: str,
        max_seq_len: int | None = None,
        train_on: Literal["last", "all"] = "all",
        **options: Any,
    ) -> None:
        self.tokenizer = _get_component_from_path(component)(path, **options)
        self.max_seq_len = max_seq_len
        self.train_on = train_on
        self.pad_id: int = self.tokenizer.pad_id

    def __call__(self, sample: Mapping[str, Any], inference: bool = False) -> dict[str, Any]:
        """Token ids and mask of `{"messages": [...]}` or `{"text": ...}`.

        Raises:
            ValueError: there are tools, which these tokenizers cannot write.
        """
        if "text" in sample:
            ids = self.tokenizer.encode(sample["text"], add_bos=True, add_eos=True)
            mask = [at == 0 for at in range(len(ids))]
            return {"tokens": ids[: self.max_seq_len], "mask": mask[: self.max_seq_len]}
        messages = sample["messages"]
        if sample.get("tools") or any(
            message["role"] == "tool" or message.get("tool_calls") for message in messages
        ):
            raise ValueError(
                f"{type(self.tokenizer).__name__} cannot write tools out; "
                "the model needs a tokenizer.json and a chat template that can"
            )
        encoded = self.tokenizer({"messages": self._marked(messages)}, inference=inference)
        limit = self.max_seq_len
        return {"tokens": encoded["tokens"][:limit], "mask": encoded["mask"][:limit]}

    def _marked(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The conversation, its turns without loss marked."""
        last = len(messages) - 1
        return [
            Message(
                role=message["role"],
                content=message["content"],
                masked=message["role"] != "assistant"
                or (self.train_on == "last" and turn != last)
                or not carries_loss(message),
            )
            for turn, message in enumerate(messages)
        ]
