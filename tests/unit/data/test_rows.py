"""entrypoint.data.rows: what a canonical row stands for."""

from entrypoint.data.rows import to_messages, to_tools

QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def test_keys_that_a_columnar_reader_filled_in_are_left_out():
    row = {"messages": [QUESTION | {"tool_calls": None, "name": None}, ANSWER], "tools": None}
    assert to_messages(row) == [QUESTION, ANSWER]
    assert to_tools(row) is None


def test_calls_and_tools_are_objects_again():
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    text = '[{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]'
    row = {"messages": [QUESTION, {"role": "assistant", "tool_calls": text}], "tools": text}
    assert to_messages(row)[1] == {"role": "assistant", "tool_calls": [call]}
    assert to_tools(row) == [call]
