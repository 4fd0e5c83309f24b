"""Which samples an evaluation of rows will have, before it runs; without lm-eval."""

import hashlib
import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from entrypoint.evaluation.request import Rows


def samples(rows: Rows, limit: int | None) -> Mapping[str, list[dict[str, Any]]]:
    """Task -> number and hash of each row, in order, as an `Evaluation` has them.

    Args:
        limit: rows that are scored; None takes all.
    """
    lines = (line for line in rows.path.read_bytes().split(b"\n") if line.strip())
    return {
        rows.name: [
            {"doc_id": number, "doc_hash": document_hash(json.loads(line))}
            for number, line in enumerate(islice(lines, limit))
        ]
    }


def document_hash(document: Mapping[str, Any]) -> str:
    """As lm-eval 0.4 hashes a task's document: the `doc_hash` of its samples."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
