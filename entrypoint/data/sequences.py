"""Canonical rows as the sequences of tokens that a model reads."""

import functools
from collections.abc import Callable
from typing import Any

from entrypoint.data.chat import Chat, Encoded, RewritesTurns
from entrypoint.data.rows import conversations
from entrypoint.errors import DataError, ModelError
from entrypoint.models.tokenizers import no_chat_template


def grouped(sequences: list[Encoded], each: int) -> list[list[Encoded]]:
    """So many sequences for each row."""
    return [sequences[start : start + each] for start in range(0, len(sequences), each)]


def render(chat: Chat, rows: list[dict[str, Any]]) -> Callable[[], list[Encoded]]:
    """The sequences that rows are, ready to be tokenised: the answers of a pair are two, one behind
    the other.

    Raises:
        ValueError: the template refuses one of them.
    """
    if "text" in rows[0]:
        return functools.partial(chat.encode_documents, [row["text"] for row in rows])
    return functools.partial(chat.encode_texts, *chat.render_all(conversations(rows)))


def name_the_row(chat: Chat, rows: list[dict[str, Any]], where: Any) -> None:
    """Say which of the rows cannot be rendered.

    Args:
        where: row -> its place, in words.

    Raises:
        DataError: the template refuses it.
        ModelError: there is no template, or it rewrites earlier turns.
    """
    if chat.tokenizer.chat_template is None:
        raise no_chat_template(chat.tokenizer.folder)
    for index, row in enumerate(rows):
        try:
            render(chat, [row])
        except RewritesTurns as error:
            raise rewrites(error, where(index)) from error
        except ValueError as error:
            raise DataError(
                str(error), where=where(index), hint="leave the row out, or train another model"
            ) from error


def rewrites(error: RewritesTurns, where: object) -> ModelError:
    """The error for a template that no loss mask can be made with."""
    return ModelError(
        str(error),
        where=where,
        hint="Qwen3's template drops the thinking of earlier turns, for example: put a template "
        "that does not into the model's chat_template.jinja, or train on the last turn alone: "
        "--set +tokenizer.train_on=last",
    )
