"""A canonical row, as `prepare` writes it, and the conversation that it stands for."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Message = dict[str, Any]
Conversation = tuple[Sequence[Mapping[str, Any]], list[Any] | None]
"""Messages, and the tools that they may call."""

ROLES = ("system", "user", "assistant", "tool")


def to_messages(row: Row) -> list[Message]:
    """The messages of a canonical row, as chat templates take them.

    Keys that a columnar reader has filled with None are left out, and tool calls, which lie in the
    file as JSON text so that their column has one type, are objects again.
    """
    return [_message(message) for message in row["messages"]]


def to_tools(row: Row) -> list[Any] | None:
    """The tools that the row's conversation may call, or None."""
    tools = row.get("tools")
    return json.loads(tools) if tools else None


def to_sample(row: Row) -> dict[str, Any]:
    """What a tokenizer takes: `{"messages", "tools"}`, or `{"text"}` of a row that is one text."""
    if "text" in row:
        return {"text": row["text"]}
    return {"messages": to_messages(row), "tools": to_tools(row)}


def to_answered(row: Row, side: str) -> list[Message]:
    """The prompt of a preference row and one of its answers, `chosen` or `rejected`; what the
    assistant says in the prompt carries no loss."""
    prompt = [{**message, "weight": 0} for message in to_messages({"messages": row["prompt"]})]
    return [*prompt, *to_messages({"messages": row[side]})]


def conversations(rows: Sequence[Row]) -> list[Conversation]:
    """Those that rows stand for: two of a preference row."""
    if "messages" in rows[0]:
        return [(to_messages(row), to_tools(row)) for row in rows]
    return [(to_answered(row, side), None) for row in rows for side in ("chosen", "rejected")]


def _message(message: Row) -> Message:
    present = {key: value for key, value in message.items() if value is not None}
    if "tool_calls" in present:
        present["tool_calls"] = json.loads(present["tool_calls"])
    return present
