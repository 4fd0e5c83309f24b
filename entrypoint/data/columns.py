"""Rows as Python objects to Arrow columns of plain text and messages. Pure.

The way for rows that no columnar reader takes as they are: JSON arrays, tool calls, content in
parts, values of changing type. Nested values become JSON text, so that no column's type depends on
its values.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

TEXT_KEYS = (
    "role", "content", "from", "value", "reasoning_content", "name", "tool_calls", "tool_call_id",
    "weight",
)  # fmt: skip
"""Keys of a message that are kept."""
CALL = "function_call"
"""What OpenAI had before tool_calls: one call."""
MIXED = "a column holds values of one kind in all rows: text, or a list of messages"
PLAIN_KINDS = {"a number": pa.float64(), "true or false": pa.bool_()}
"""Values that are taken as text, and the type that says so where columns are known by types."""
AS_JSON = ("tools", "tool_calls")
"""Names of columns and keys whose values are kept as JSON text."""


class ColumnError(ValueError):
    """A value that its column cannot hold.

    Args:
        row: from 0.
    """

    def __init__(self, row: int, what: str) -> None:
        super().__init__(what)
        self.row = row


def to_table(rows: Sequence[Mapping[str, Any]], wanted: pa.Schema | None) -> pa.Table:
    """The rows as a table.

    Args:
        wanted: columns whose values matter, with the types they have elsewhere; of others only
            whether they are there. None takes all, each with its first value's type.

    Raises:
        ColumnError: a value is of another kind than its column.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, pa.Array] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if wanted is not None and name not in wanted.names:
            columns[name] = pa.array([None if value is None else True for value in values])
            continue
        expected = None if wanted is None else wanted.field(name).type
        columns[name] = _column(name, values, expected, strict=wanted is not None)
    return pa.table(columns)


def _column(name: str, values: list[Any], expected: pa.DataType | None, strict: bool) -> pa.Array:
    if name in AS_JSON:
        return pa.array([as_json(value) for value in values], pa.string())
    kind = _kind_of(expected) if expected is not None else None
    first = next((value for value in values if value is not None), None)
    if kind is None and first is None:
        return pa.nulls(len(values))
    kind = kind or _kind(first)
    for row, value in enumerate(values):
        if strict and value is not None and _kind(value) != kind:
            raise ColumnError(row, f"{name} is {_kind(value)}, not {kind}")
    values = [value if value is not None and _kind(value) == kind else None for value in values]
    if kind == "messages":
        return _messages(name, values)
    if kind == "text":
        return _strings(name, values)
    if kind in PLAIN_KINDS:
        if strict:
            return pa.array([None if value is None else json.dumps(value) for value in values])
        # their type is what matters, and not every number has a place in it
        return pa.nulls(len(values), PLAIN_KINDS[kind])
    return pa.array([as_json(value) for value in values], pa.binary())


def _messages(name: str, conversations: list[Any]) -> pa.Array:
    there = {
        key: None
        for row in conversations
        for message in row or ()
        if isinstance(message, Mapping)
        for key in message
    }
    if CALL in there:
        there["tool_calls"] = None
    keys = [key for key in TEXT_KEYS if key in there] or ["role", "content"]
    # of keys that are not kept only whether they are there
    others = [key for key in there if key not in (*TEXT_KEYS, CALL)]
    type_ = pa.list_(
        pa.struct([*((key, pa.string()) for key in keys), *((key, pa.bool_()) for key in others)])
    )
    built: list[list[dict[str, Any]] | None] = []
    for row, conversation in enumerate(conversations):
        if conversation is None:
            built.append(None)
            continue
        built.append([])
        for number, message in enumerate(conversation, start=1):
            if not isinstance(message, Mapping):
                raise ColumnError(
                    row, f"{name}, message {number} is {_kind(message)}, not an object"
                )
            try:
                turn: dict[str, Any] = {key: _value(key, _get(message, key)) for key in keys}
                turn |= {key: True for key in others if message.get(key) is not None}
                built[-1].append(turn)  # type: ignore[union-attr]
            except ValueError as error:
                raise ColumnError(row, f"{name}, message {number}: {error}") from error
    try:
        return pa.array(built, type_)
    except UnicodeEncodeError as error:
        row = next(row for row, found in enumerate(built) if not _encodes(found))
        raise ColumnError(row, f"{name} holds half a character: {error.reason}") from error


def _get(message: Mapping[str, Any], key: str) -> Any:
    value = message.get(key)
    if key == "tool_calls" and not value and (call := message.get(CALL)) is not None:
        return [{"type": "function", "function": call}]
    return value


def parsed(name: str, column: pa.Array) -> pa.Array:
    """Conversations that are JSON text, as CSV files have them.

    Raises:
        ColumnError: a value is none.
    """
    values: list[Any] = []
    for row, text in enumerate(column.to_pylist()):
        try:
            value = json.loads(text) if text and text.strip() else None
        except json.JSONDecodeError as error:
            what = f"{name} is text, not messages, nor are they written in it as JSON: {error}"
            raise ColumnError(row, what) from error
        if value is not None and _kind(value) != "messages":
            raise ColumnError(row, f"{name} is {_kind(value)} in JSON, not messages")
        values.append(value)
    return _messages(name, values)


def _value(key: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if key == "weight" and _kind(value) in PLAIN_KINDS:
        return json.dumps(value)
    if key in AS_JSON:
        return as_json(value)
    if key == "content" and isinstance(value, list):
        parts = []
        for part in value:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"a part of its content is {kind or _kind(part)}, not text")
            parts.append(part["text"])
        return "".join(parts)
    raise ValueError(f"{key} is {_kind(value)}, not text")


def _strings(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        row = next(row for row, value in enumerate(values) if not _encodes(value))
        raise ColumnError(row, f"{name} holds half a character: {error.reason}") from error


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def as_json(value: Any) -> str | None:
    """A nested value as JSON text, without keys that columnar files fill with null."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(_without_nulls(value), ensure_ascii=False, default=str)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "messages" if not value or isinstance(value[0], Mapping) else "a list"
    return "an object" if isinstance(value, Mapping) else type(value).__name__


def _kind_of(type_: pa.DataType) -> str | None:
    if pa.types.is_string(type_):
        return "text"
    if pa.types.is_list(type_):
        return "messages"
    if is_number(type_):
        return "a number"
    return "true or false" if pa.types.is_boolean(type_) else None


def is_number(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    )


def is_plain(type_: pa.DataType) -> bool:
    """Whether a column of this type can be taken as it is."""
    if pa.types.is_list(type_):
        inner = type_.value_type
        return pa.types.is_struct(inner) and all(
            field.type in (pa.string(), pa.null())
            for field in inner
            if field.name in (*TEXT_KEYS, CALL)
        )
    return type_ in (pa.string(), pa.null())


def plain(table: pa.Table, wanted: pa.Schema | None) -> pa.Table | None:
    """The table with texts of other encodings cast, or None when it has to go row by row."""
    names = table.column_names if wanted is None else wanted.names
    for index, (name, field) in enumerate(zip(table.column_names, table.schema, strict=True)):
        if name not in names:
            continue
        type_ = _simplified(field.type)
        if type_ != field.type:
            table = table.set_column(index, name, table[name].cast(type_))
        if wanted is None:
            continue
        expected = wanted.field(name).type
        if _kind_of(expected) in PLAIN_KINDS and _kind_of(type_) == _kind_of(expected):
            table = table.set_column(index, name, table[name].cast(pa.string()))
            continue
        both_text = type_ == pa.string() and expected == pa.string()
        both_lists = pa.types.is_list(type_) and pa.types.is_list(expected)
        if not (pa.types.is_null(type_) or (is_plain(type_) and (both_text or both_lists))):
            return None
        if name in AS_JSON and type_ not in (pa.string(), pa.null()):
            return None
    return table


def _simplified(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return _simplified(type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if (
        pa.types.is_large_list(type_)
        or pa.types.is_list(type_)
        or pa.types.is_fixed_size_list(type_)
    ):
        return pa.list_(_simplified(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _simplified(field.type)) for field in type_])
    return type_
