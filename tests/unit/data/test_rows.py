"""entrypoint.data.rows: shapes of rows and what each stands for."""

import pytest

from entrypoint.data.rows import to_messages

QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [QUESTION, ANSWER]}, [QUESTION, ANSWER]),
        ({"instruction": "q", "output": "a"}, [QUESTION, ANSWER]),
        ({"prompt": "q", "completion": "a"}, [QUESTION, ANSWER]),
        ({"instruction": "q", "input": "", "output": "a", "id": 7}, [QUESTION, ANSWER]),
        (
            {"instruction": "q", "input": "i", "output": "a"},
            [{"role": "user", "content": "q\n\ni"}, ANSWER],
        ),
        # what a columnar reader makes of rows that differ in their keys
        (
            {"messages": [QUESTION | {"tool_calls": None}, ANSWER], "prompt": None},
            [QUESTION, ANSWER],
        ),
    ],
)
def test_shapes(row: dict, messages: list):
    assert to_messages(row) == messages


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x", "id": 1}, "columns id, text are of no known shape"),
        ({"instruction": " ", "output": "a"}, "instruction is empty"),
        ({"prompt": 3, "completion": "a"}, "prompt is int, not text"),
        ({"messages": []}, "at least one message"),
        ({"messages": "q"}, "not a list"),
        ({"messages": ["q"]}, "message 1 is str"),
        ({"messages": [QUESTION]}, "last message is the user's"),
        ({"messages": [{"role": "human", "content": "q"}, ANSWER]}, "message 1 has role 'human'"),
        (
            {"messages": [QUESTION, {"role": "assistant", "content": ""}]},
            r"message 2 \(assistant\) is empty",
        ),
        ({"messages": [{"role": "user", "content": ["q"]}, ANSWER]}, "not text"),
    ],
)
def test_broken_rows_say_what_is_wrong(row: dict, message: str):
    with pytest.raises(ValueError, match=message):
        to_messages(row)
