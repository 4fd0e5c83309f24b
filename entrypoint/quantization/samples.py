"""Rows that a model is rounded by. Imports the tokenizer only when it is called."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.data.rows import conversations
from entrypoint.data.writing import RowFile
from entrypoint.errors import DataError
from entrypoint.models.tokenizers import no_chat_template
from entrypoint.schemes import CALIBRATION_ROWS

LONGEST = 512
"""Tokens after which a row is cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What to round by."""

    reference: str
    """As the user names the data."""
    file: RowFile
    """Canonical rows."""
    count: int = CALIBRATION_ROWS


def token_ids(checkpoint: Path, calibration: Calibration) -> list[list[int]]:
    """Rows from all over the file, as the model reads them; both answers of a pair.

    Raises:
        DataError: the chat template refuses a row.
        ModelError: there is no chat template.
    """
    from jinja2.exceptions import TemplateError

    from entrypoint.data.chat import Chat

    rows = list(_spread(calibration))
    chat = Chat(str(checkpoint))
    if "text" in rows[0]:
        encoded = chat.encode_documents([row["text"] for row in rows])
    else:
        if chat.tokenizer.chat_template is None:
            raise no_chat_template(checkpoint)
        try:
            texts = [chat.render(*one) for one in conversations(rows)]
        except TemplateError as error:
            raise DataError(
                f"the chat template refuses a row: {error}", where=calibration.reference
            ) from error
        encoded = chat.encode_texts(texts, [()] * len(texts))
    return [one.ids[:LONGEST] for one in encoded if one.ids]


def _spread(calibration: Calibration) -> Iterator[dict[str, Any]]:
    """The same rows every time: one of so many."""
    total = calibration.file.rows
    wanted = {place * total // calibration.count for place in range(calibration.count)}
    with calibration.file.path.open(encoding="utf-8") as lines:
        for index, line in enumerate(lines):
            if index in wanted:
                yield json.loads(line)
