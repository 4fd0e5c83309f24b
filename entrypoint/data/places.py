"""Which field of a row a check has met, in words. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from entrypoint.data.rows import ROLES
from entrypoint.data.shapes import Shape

Turn = Mapping[str, Any]
NESTED = {"messages": "messages", "sharegpt": "conversations"}


def _empty(turn: Turn, before: str | None) -> bool:
    return not (turn["content"] or "").strip() and not turn["tool_calls"]


def _order(turn: Turn, before: str | None) -> bool:
    role = turn["role"]
    late = role == "system" and before is not None
    unasked = role == "assistant" and before in (None, "system")
    return late or unasked or (role in ("user", "assistant") and role == before)


MET: Mapping[str, Callable[[Turn, str | None], bool]] = {
    "empty": _empty,
    "roles": lambda turn, before: turn["role"] not in ROLES,
    "order": _order,
    "encoding": lambda turn, before: "\ufffd" in (turn["content"] or ""),
}
"""Check -> whether a turn is what it met, after a turn of some role."""


def field(shape: Shape, check: str, row: Mapping[str, Any]) -> str:
    """The field of a canonical row, by the column that it is from: "output", "messages, message 3".

    Args:
        check: one of those that say something about a row alone.
    """
    columns = shape.columns
    if check == "same":
        return f"{columns['chosen']} and {columns['rejected']}"
    if "text" in row:
        return columns["text"]
    if check == "unread":
        return next(columns[name] for name in columns if name in (*NESTED.values(), "chosen"))
    last = ""
    for parts in _sides(row):
        before = None
        for part, at, turn in parts:
            last = _name(shape, part, at, turn)
            if turn is None:
                if check == "empty":
                    return last
                continue
            if MET[check](turn, before):
                return last + (f", role {turn['role']}" if check == "roles" else "")
            before = turn["role"]
        if check == "roles" and before not in (None, "assistant"):
            return f"{last}, the last, role {before}"
    return last


def _sides(row: Mapping[str, Any]) -> Iterator[list[tuple[str, int, Turn | None]]]:
    """The conversations that a row is, turn by turn; None stands for an empty part."""
    answers = (
        [("messages",)] if "messages" in row else [("prompt", "chosen"), ("prompt", "rejected")]
    )
    for parts in answers:
        yield [(part, at, turn) for part in parts for at, turn in enumerate(row[part] or [None])]


def _name(shape: Shape, part: str, at: int, turn: Turn | None) -> str:
    columns = shape.columns
    role = turn["role"] if turn else None
    if role == "system" and at == 0 and "system" in columns:
        return columns["system"]
    if shape.format in NESTED:
        before = at - ("system" in columns)
        column = columns[NESTED[shape.format]]
        return column if turn is None else f"{column}, message {max(before, 0) + 1}"
    if part == "messages":
        question, answer = list(shape.required.values())
        return answer if role == "assistant" else question
    column = columns.get(part, columns["chosen"])
    return column if turn is None or at == 0 else f"{column}, message {at + 1}"
