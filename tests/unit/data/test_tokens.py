"""entrypoint.data.tokens, chat and packing: what a row is in tokens, and what is learnt from."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.data.chat import Chat
from entrypoint.data.packing import packs
from entrypoint.data.tokens import TokenInspector, histogram
from entrypoint.data.trained import check_trained
from entrypoint.errors import DataError, ModelError
from tests.unit.data.sets import COUNT, SHAPES, lines, preferred, read, run, sft, turn

REWRITES = (
    "{% for m in messages if m.role == 'user' or m == messages[-1] %}{{ m.content }}{% endfor %}"
)
SFT_SHAPES = [name for name in SHAPES if not name.startswith(("preference", "text"))]


@pytest.fixture
def chat(tiny_model: Path) -> Chat:
    return Chat(str(tiny_model))


def prepared(path: Path, chat: Chat, limit: int, *given: str, preview: int = 0) -> TokenInspector:
    from entrypoint.data.checks import policies
    from entrypoint.data.folder import Request
    from entrypoint.data.prepare import prepare
    from entrypoint.data.source import locate

    inspector = TokenInspector(chat, limit, preview)
    request = Request(policies=policies(given))
    source = locate(str(path), path.parent)
    assert source is not None
    inspector.result = prepare(source, request, None, (inspector,))
    return inspector


@pytest.mark.parametrize("shape", SFT_SHAPES)
def test_every_shape_trains_on_the_answers_and_their_ends(
    tmp_path: Path, tiny_model: Path, chat: Chat, shape: str
):
    """The data set of training has the right labels, as many as the statistics count."""
    from entrypoint.tune import compat

    compat.apply()
    from entrypoint.tune.datasets import ChatDataset
    from entrypoint.tune.tokenizer import ChatTokenizer

    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([SHAPES[shape][0](n) for n in range(COUNT)]))
    run(path, tmp_path / "out")
    file = tmp_path / "out" / "train.jsonl"
    rows = ChatDataset(ChatTokenizer(str(tiny_model)), str(file))
    labels = [[label for label in rows[row]["labels"] if label != -100] for row in range(len(rows))]
    for row, trained in zip(read(file), labels, strict=True):
        answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        assert chat.tokenizer.decode(trained) == "".join(
            f"{answer}<|im_end|>" for answer in answers
        )
    found = prepared(file, chat, 512).statistics()
    assert found.trained == sum(map(len, labels))
    assert found.tokens == sum(len(rows[row]["tokens"]) for row in range(len(rows)))


def test_turns_of_weight_zero_are_not_trained(tmp_path: Path, chat: Chat):
    path = tmp_path / "rows.jsonl"
    silent = turn("assistant", "one two three") | {"weight": 0}
    path.write_bytes(lines([{"messages": [turn("user", "q"), silent, *sft(1)["messages"]]}]))
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(lines([sft(1)]))
    found, expected = (prepared(file, chat, 512).statistics() for file in (path, plain))
    assert found.tokens > expected.tokens
    assert found.trained == expected.trained
    path.write_bytes(lines([{"messages": [turn("user", "q"), silent]}]))
    with pytest.raises(DataError, match="no token to learn from"):
        prepared(path, chat, 512)


def test_statistics_of_pairs_and_of_text(tmp_path: Path, chat: Chat):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([preferred(n) for n in range(4)]))
    assert prepared(path, chat, 512).statistics().rows == 8
    path.write_bytes(lines([{"text": "one two"}, {"text": "three"}]))
    found = prepared(path, chat, 512).statistics()
    # nothing foretells the first token of a text
    assert found.trained == found.tokens - 2 > 2


def test_rows_with_nothing_to_learn_and_long_rows(tmp_path: Path, chat: Chat):
    path = tmp_path / "rows.jsonl"
    hidden = {"messages": [turn("user", "x y " * 60), turn("assistant", "a")]}
    cut = {"messages": [turn("user", "x"), turn("assistant", "a b " * 60)]}
    path.write_bytes(lines([sft(1), cut, hidden]))
    with pytest.raises(DataError, match=r"no token to learn from[\s\S]*line 3"):
        prepared(path, chat, 64)
    inspector = prepared(path, chat, 64, "untrained=drop", preview=5)
    found = inspector.result.findings.by_check
    assert (found["untrained"].count, found["long"].count) == (1, 1)
    statistics = inspector.statistics()
    assert (statistics.rows, statistics.longest, len(inspector.shown)) == (2, 64, 2)


def test_a_run_is_stopped_before_it_learns_from_nothing(tmp_path: Path, chat: Chat):
    path = tmp_path / "rows.jsonl"
    hidden = {"messages": [turn("user", "x y " * 900), turn("assistant", "a")]}
    path.write_bytes(lines([*[sft(n) for n in range(100)], hidden]))
    check_trained(path, chat, 8_192)
    with pytest.raises(DataError, match=r"answer lies behind the 512 tokens[\s\S]*line 101"):
        check_trained(path, chat, 512)


def test_a_template_that_rewrites_turns_is_found(tmp_path: Path, chat: Chat):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([{"messages": [*sft(1)["messages"], *sft(2)["messages"]]}]))
    chat.tokenizer.chat_template = REWRITES
    for look in (check_trained, lambda path, chat, limit: prepared(path, chat, limit)):
        with pytest.raises(ModelError, match=r"mid-conversation[\s\S]*line 1[\s\S]*Qwen3"):
            look(path, chat, 512)
    chat.train_on = "last"
    check_trained(path, chat, 512)


def test_a_row_that_the_template_refuses_is_named(tmp_path: Path, chat: Chat):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([sft(1), sft(2, system=True)]))
    chat.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + chat.tokenizer.chat_template
    )
    with pytest.raises(DataError, match=r"no system role[\s\S]*line 2"):
        check_trained(path, chat, 512)


def best_fit(lengths: list[int], size: int) -> int:
    """The same, sequence by sequence."""
    space: list[int] = []
    for length in sorted((min(length, size) for length in lengths if length), reverse=True):
        fitting = [room for room in space if room >= length]
        if fitting:
            space.remove(min(fitting))
            space.append(min(fitting) - length)
        else:
            space.append(size - length)
    return len(space)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 30))
def test_packing_is_best_fit(lengths: list[int], size: int):
    assert packs(np.bincount(lengths, minlength=1), size) == best_fit(lengths, size)


def test_the_histogram_counts_every_row():
    lengths = [random.Random(0).randint(1, 3000) for _ in range(500)]
    found = histogram(np.bincount(lengths))
    assert sum(rows for _, _, rows in found) == 500
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(found))
