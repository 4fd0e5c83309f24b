"""From a source's columns to the canonical ones of a task, column by column. Pure.

Canonical columns: sft `messages` (and `tools`), preference `prompt`, `chosen`, `rejected`, text
`text`. All but `text` and `tools` are conversations as `entrypoint.data.arrays.MESSAGES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from entrypoint.data import arrays
from entrypoint.data.arrays import FIELDS, bounds, cut, join, messages, numpy, one_each, text
from entrypoint.data.columns import TEXT_KEYS, parsed
from entrypoint.data.shapes import Shape, Task

CONVERSATIONS = ("messages", "conversations")
OPENAI_ROLES = {"developer": "system", "function": "tool"}
"""What OpenAI calls some roles, in requests of other years."""
SHAREGPT_ROLES = OPENAI_ROLES | {
    "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "bot": "assistant",
    "ai": "assistant", "function_call": "assistant", "observation": "tool",
    "function_response": "tool", "user": "user", "assistant": "assistant", "system": "system",
    "tool": "tool",
}  # fmt: skip
"""Names for `from`, whatever their case."""


def canonical(table: pa.Table, shape: Shape) -> pa.Table:
    """The rows in the canonical shape of their task; as many, in the same order.

    Raises:
        ColumnError: text in a column of conversations is no JSON of them.
    """
    columns = {
        name: table[column].combine_chunks() if column in table.column_names else None
        for name, column in shape.columns.items()
    }
    for name in CONVERSATIONS:
        column = columns.get(name)
        if column is not None and column.type == pa.string():
            columns[name] = parsed(shape.columns[name], column)
    return CONVERTERS[shape.task](columns, table.num_rows)


def unread(table: pa.Table, shape: Shape) -> dict[str, Any]:
    """Which rows have messages with keys that are not read: the check's name -> bool each."""
    found = np.zeros(table.num_rows, bool)
    for column in shape.columns.values():
        if column not in table.column_names or not pa.types.is_list(table[column].type):
            continue
        lists = table[column].combine_chunks()
        starts, stops = bounds(lists)
        for field in lists.type.value_type:
            if field.name not in TEXT_KEYS:
                there = numpy(lists.values.field(field.name).is_valid())
                total = np.concatenate(([0], np.cumsum(there)))
                found |= total[stops] > total[starts]
    return {"unread": found}


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Canonical rows as they are written."""

    lines: pa.StringArray
    """Each with its end."""
    rows: Any
    """A hash of each row."""
    questions: Any
    """A hash of what comes before the first answer of each row; of a whole text."""

    def filter(self, chosen: Any) -> "Encoded":
        """The rows where `chosen` is true."""
        return Encoded(
            lines=self.lines.filter(pa.array(chosen)),
            rows=self.rows[chosen],
            questions=self.questions[chosen],
        )


def encode(table: pa.Table) -> Encoded:
    """Canonical rows as lines of JSON, with their hashes."""
    pieces: list[Any] = []
    found: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        key = f'{", " if pieces else "{"}"{name}": '
        if column.type == arrays.MESSAGES:
            value, each = arrays.json_messages(column)
            found[name] = arrays.combined(each, *bounds(column))
            if name == "messages":
                found["question"] = arrays.combined(each, *before_answer(column))
            pieces += [key, value]
        else:
            value = pc.coalesce(arrays.glue(f'{key}"', arrays.escaped(column), '"'), "")
            found[name] = arrays.hashes(value)
            pieces.append(value)
    columns = np.stack([found[name] for name in table.column_names], axis=1)
    starts = np.arange(len(columns)) * columns.shape[1]
    question = next(found[name] for name in ("question", "prompt", "text") if name in found)
    return Encoded(
        lines=arrays.glue(*pieces, "}\n"),
        rows=arrays.combined(columns.reshape(-1), starts, starts + columns.shape[1]),
        questions=question,
    )


def before_answer(conversations: pa.ListArray) -> tuple[Any, Any]:
    """Bounds of what each conversation holds before its first answer."""
    starts, stops = bounds(conversations)
    answers = numpy(pc.fill_null(pc.equal(conversations.values.field("role"), "assistant"), False))
    at = np.append(np.flatnonzero(answers), len(answers))
    return starts, np.minimum(at[np.searchsorted(at, starts)], stops)


def _sft(columns: dict[str, Any], count: int) -> pa.Table:
    parts = []
    if (system := columns.get("system")) is not None:
        parts.append(one_each("system", _filled(system)))
    if "messages" in columns or "conversations" in columns:
        parts.append(_conversation(columns.get("messages", columns.get("conversations")), count))
    elif "instruction" in columns:
        question = _text(columns["instruction"], count)
        if (context := columns.get("input")) is not None:
            given = _filled(context)
            with_context = pc.binary_join_element_wise(question, given, "\n\n")
            question = pc.if_else(given.is_valid(), with_context, question)
        parts += [_turn("user", question), _turn("assistant", columns["output"], count)]
    else:
        question, answer = (
            ("prompt", "completion") if "prompt" in columns else ("question", "answer")
        )
        parts += [
            _turn("user", columns[question], count),
            _turn("assistant", columns[answer], count),
        ]
    found = {"messages": join(parts) if len(parts) > 1 else parts[0]}
    tools = columns.get("tools")
    if tools is not None and tools.null_count < count:
        found["tools"] = _filled(tools)
    return pa.table(found)


def _preference(columns: dict[str, Any], count: int) -> pa.Table:
    chosen = _turn("assistant", columns["chosen"], count)
    rejected = _turn("assistant", columns["rejected"], count)
    shared = _common(chosen, rejected)
    prompt = columns.get("prompt")
    before = _turn(
        "user",
        prompt if prompt is not None else pa.nulls(count, pa.string()),
        count,
        empty=prompt is None,
    )
    (starts, stops), (other, other_stops) = bounds(chosen), bounds(rejected)
    whole = shared > 0
    beginning, end = bounds(before)
    parts = [cut(before, beginning, np.where(whole, beginning, end))]
    if (system := columns.get("system")) is not None:
        parts.insert(0, one_each("system", _filled(system)))
    parts.append(cut(chosen, starts, starts + shared))
    return pa.table(
        {
            "prompt": join(parts),
            "chosen": cut(chosen, starts + shared, stops),
            "rejected": cut(rejected, other + shared, other_stops),
        }
    )


def _plain(columns: dict[str, Any], count: int) -> pa.Table:
    return pa.table({"text": _text(columns["text"], count)})


CONVERTERS: dict[Task, Callable[[dict[str, Any], int], pa.Table]] = {
    "sft": _sft, "preference": _preference, "text": _plain,
}  # fmt: skip


def _text(column: Any, count: int) -> pa.StringArray:
    """A required text; a missing one is empty, which the checks find."""
    if column is None:
        return pa.repeat(pa.scalar(""), count)
    return pc.fill_null(text(column), "")


def _filled(column: Any) -> pa.StringArray:
    """An optional text: null where it is empty."""
    column = text(column)
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)


def _turn(role: str, column: Any, count: int | None = None, empty: bool = False) -> pa.ListArray:
    """A column of one side's text, or of conversations already."""
    if column is not None and pa.types.is_list(column.type):
        return _conversation(column, len(column))
    if empty:
        return one_each(role, column)
    return one_each(role, _text(column, len(column) if column is not None else count or 0))


def _conversation(column: Any, count: int) -> pa.ListArray:
    """A list of messages in either dialect; a missing one is empty."""
    if column is None or not pa.types.is_list(column.type):
        return messages(np.zeros(count, np.int64), "user", pa.array([], pa.string()))
    starts, stops = bounds(column)
    flat = column.values.take(pa.array(arrays.ranges(starts, stops - starts)))
    there = {name: flat.field(name) for name in (field.name for field in flat.type)}
    if "from" in there:
        there["role"] = (
            pc.coalesce(there["role"], there["from"]) if "role" in there else there["from"]
        )
        said = there.get("value", pa.nulls(len(flat), pa.string()))
        there["content"] = pc.coalesce(there["content"], said) if "content" in there else said
    role = text(there.get("role", pa.nulls(len(flat), pa.string())))
    names, written = OPENAI_ROLES, role
    if "from" in there:
        names, written = SHAREGPT_ROLES, pc.utf8_lower(pc.utf8_trim_whitespace(role))
    index = pc.index_in(written, pa.array(list(names)))
    role = pc.coalesce(pa.array(list(names.values())).take(index), role)
    others = {name: text(there[name]) for name in FIELDS[2:] if name in there}
    content = text(there.get("content", pa.nulls(len(flat), pa.string())))
    if "tool_calls" in others:
        # empty text beside a call is how some write that there is none
        calls = others["tool_calls"].is_valid()
        content = pc.if_else(pc.and_(calls, pc.equal(content, "")), None, content)
    return messages(stops - starts, role, content, **others)


def _common(chosen: pa.ListArray, rejected: pa.ListArray) -> Any:
    """How many messages both begin with; at most all but the last, none before an answer."""
    (a, a_end), (b, b_end) = bounds(chosen), bounds(rejected)
    most = np.maximum(np.minimum(a_end - a, b_end - b) - 1, 0)
    shared, alive = np.zeros(len(a), np.int64), most > 0
    if len(chosen.values):
        role = pc.fill_null(chosen.values.field("role"), "")
        starts_with_answer = numpy(
            pc.equal(role.take(pa.array(np.minimum(a, len(role) - 1))), "assistant")
        )
        alive &= ~starts_with_answer
    while alive.any():
        rows = np.flatnonzero(alive)
        left = chosen.values.take(pa.array(a[rows] + shared[rows]))
        right = rejected.values.take(pa.array(b[rows] + shared[rows]))
        same = np.ones(len(rows), bool)
        for name in ("role", "content"):
            equal = pc.equal(
                pc.fill_null(left.field(name), ""), pc.fill_null(right.field(name), "")
            )
            same &= numpy(equal)
        shared[rows[same]] += 1
        alive[rows[~same]] = False
        alive &= shared < most
    return shared
