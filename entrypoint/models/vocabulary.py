"""Which token each number stands for, and whether two models agree on it. Reads files, no torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from entrypoint.errors import ModelError
from entrypoint.models.companions import FAST, NATIVE

Vocabulary = Mapping[str, int]


def read(folder: Path) -> Vocabulary:
    """Token -> number, added tokens included; of a tokenizer.model, its hash in a token's place.

    Raises:
        ModelError: tokenizer.json is not what it should be.
    """
    path = folder / FAST
    if not path.is_file():
        digest = hashlib.sha256((folder / NATIVE).read_bytes()).hexdigest()
        return {f"{NATIVE} {digest[:12]}": 0}
    try:
        found = json.loads(path.read_text("utf-8"))
        vocabulary = found["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: token and score, by number
            vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
        added = {token["content"]: token["id"] for token in found.get("added_tokens") or ()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{FAST} cannot be read: {error!r}", where=path) from error
    return {**vocabulary, **added}


def check_same(student: Vocabulary, teacher: Vocabulary, names: tuple[str, str]) -> None:
    """Make sure that a teacher's probabilities are about the tokens that a student has.

    The teacher may know more tokens, and both may have room for more than they know.

    Args:
        names: what student and teacher are called.

    Raises:
        ModelError: a token of the student has another number with the teacher, or none.
    """
    odd = next((token for token, number in student.items() if teacher.get(token) != number), None)
    if odd is None:
        return
    differ = sum(teacher.get(token) != number for token, number in student.items())
    theirs = f"number {teacher[odd]}" if odd in teacher else "unknown"
    raise ModelError(
        f"student and teacher do not share a vocabulary: {differ:,} of the {len(student):,} tokens "
        f"of {names[0]} are others in {names[1]}; {odd!r} is number {student[odd]} and {theirs}",
        where="--teacher or TRAIN_TEACHER",
        hint="distillation compares probabilities token by token: take a teacher of the student's "
        "own family",
    )
