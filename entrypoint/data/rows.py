"""The shapes of rows that training reads, and the conversation each of them stands for."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
PROMPT_AND_ANSWER = (("instruction", "output"), ("prompt", "completion"))
"""Pairs of columns that hold a question and its answer, most specific first."""
SHAPES = "messages; instruction (and input), output; or prompt, completion"


def to_messages(row: Row) -> list[Message]:
    """The row as a list of chat messages that ends with the assistant's answer.

    Raises:
        ValueError: the row has none of the known shapes, or breaks the one it has.
    """
    if row.get("messages") is not None:
        return _checked_messages(row["messages"])
    for prompt, answer in PROMPT_AND_ANSWER:
        if prompt in row and answer in row:
            question = _text(row, prompt)
            context = _text(row, "input") if row.get("input") else ""
            return [
                {"role": "user", "content": "\n\n".join(filter(None, (question, context)))},
                {"role": "assistant", "content": _text(row, answer)},
            ]
    raise ValueError(f"columns {', '.join(sorted(row))} are of no known shape ({SHAPES})")


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise ValueError(f"{column} is {type(value).__name__}, not text")
    if not value.strip():
        raise ValueError(f"{column} is empty")
    return value


def _checked_messages(messages: Any) -> list[Message]:
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages is not a list with at least one message")
    checked: list[Message] = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {number} is {type(message).__name__}, not an object")
        # a columnar reader fills keys that only other rows have with None
        present = {key: value for key, value in message.items() if value is not None}
        if present.get("role") not in ROLES:
            raise ValueError(
                f"message {number} has role {present.get('role')!r}, not one of {', '.join(ROLES)}"
            )
        if not isinstance(present.get("content", ""), str):
            raise ValueError(f"message {number} has a content that is not text")
        if not present.get("content") and not present.get("tool_calls"):
            raise ValueError(f"message {number} ({present['role']}) is empty")
        checked.append(present)
    if checked[-1]["role"] != "assistant":
        raise ValueError(
            f"the last message is the {checked[-1]['role']}'s; training needs an assistant's answer"
        )
    return checked
