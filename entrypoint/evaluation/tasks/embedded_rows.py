"""Loads the built-in evaluation rows for embedded.yaml; lm-eval imports this file by its path."""

from typing import Any

import datasets

from entrypoint.data.source import EMBEDDED_FOLDER


def load(**_: Any) -> datasets.DatasetDict:
    rows = datasets.load_dataset("json", data_files={"test": str(EMBEDDED_FOLDER / "eval.jsonl")})
    assert isinstance(rows, datasets.DatasetDict)
    return rows
