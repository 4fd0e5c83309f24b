"""entrypoint.models.vocabulary and teacher: student and teacher count tokens alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.errors import ModelError
from entrypoint.models.teacher import load_both
from entrypoint.models.vocabulary import check_same, read
from tests.tiny import write_tiny_model

NAMES = ("small", "large")


def tokenizer(folder: Path, vocabulary: Any, added: tuple[str, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    first = len(vocabulary)
    tokens = [{"id": first + index, "content": token} for index, token in enumerate(added)]
    found = {"model": {"vocab": vocabulary}, "added_tokens": tokens}
    (folder / "tokenizer.json").write_text(json.dumps(found))
    return folder


def test_added_tokens_and_lists_are_read(tmp_path: Path):
    assert read(tokenizer(tmp_path / "bpe", {"a": 0, "b": 1}, ("<end>",))) == {
        "a": 0, "b": 1, "<end>": 2,
    }  # fmt: skip
    assert read(tokenizer(tmp_path / "unigram", [["a", -1.0], ["b", -2.0]])) == {"a": 0, "b": 1}


def test_a_native_tokenizer_is_known_by_its_bytes(tmp_path: Path):
    for name, content in (("one", b"x"), ("same", b"x"), ("other", b"y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.model").write_bytes(content)
    one, same, other = (read(tmp_path / name) for name in ("one", "same", "other"))
    check_same(one, same, NAMES)
    with pytest.raises(ModelError):
        check_same(one, other, NAMES)


def test_a_broken_tokenizer_is_named(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        read(tmp_path)


def test_the_teacher_may_know_more():
    check_same({"a": 0, "b": 1}, {"a": 0, "b": 1, "c": 2}, NAMES)


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"a": 0, "b": 2}, "1 of the 2 tokens of small .* .b. is number 1 and number 2"),
        ({"a": 0}, "'b' is number 1 and unknown"),
    ],
)  # fmt: skip
def test_another_number_is_named(teacher: dict, words: str):
    with pytest.raises(ModelError, match=words) as refused:
        check_same({"a": 0, "b": 1}, teacher, NAMES)
    assert "--teacher" in str(refused.value)


def test_vocabularies_of_different_room_are_the_same(tiny_model: Path, tmp_path: Path):
    """As Qwen2's, which are padded to different sizes."""
    roomy = write_tiny_model(tmp_path / "roomy", vocabulary=528)
    student, teacher = load_both(str(tiny_model), str(roomy), {})
    assert student.arguments["vocab_size"] == 512
    assert teacher.arguments["vocab_size"] == 528


def test_a_teacher_with_another_tokenizer_is_refused(tiny_model: Path, tmp_path: Path):
    odd = write_tiny_model(tmp_path / "odd")
    path = odd / "tokenizer.json"
    found = json.loads(path.read_text())
    vocabulary = found["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(found))
    with pytest.raises(ModelError, match="2 of the 512 tokens"):
        load_both(str(tiny_model), str(odd), {})


def test_errors_of_the_teacher_name_its_option(tiny_model: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="the teacher: there is no model folder") as refused:
        load_both(str(tiny_model), str(tmp_path / "none" / "x"), {})
    assert refused.value.where == "--teacher or TRAIN_TEACHER"
