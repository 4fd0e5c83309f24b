"""Token ids and labels of the benchmark's rows, as Tunecask makes them.

python tokens.py MODEL ROWS OUT

A process of its own, so that the benchmark's has no torch in its memory.
"""

import json
import sys
from pathlib import Path
from typing import Any

from entrypoint.models.embedded.materialise import materialise
from entrypoint.tune import compat

compat.apply()

from entrypoint.tune.tokenizer import ChatTokenizer  # noqa: E402

IGNORED = -100


def encode(tokenizer: ChatTokenizer, messages: list[Any]) -> dict[str, list[int]]:
    tokens, mask = tokenizer.tokenize(messages)
    labels = [IGNORED if masked else token for token, masked in zip(tokens, mask, strict=True)]
    return {"tokens": tokens, "labels": labels}


def encoded(tokenizer: ChatTokenizer, row: dict[str, Any]) -> dict[str, list[int]]:
    """One row, with the names that torchtune's recipes and our workers use."""
    if "messages" in row:
        return encode(tokenizer, row["messages"])
    pair = {}
    for side in ("chosen", "rejected"):
        found = encode(tokenizer, row["prompt"] + row[side])
        pair |= {f"{side}_input_ids": found["tokens"], f"{side}_labels": found["labels"]}
    return pair


def main() -> None:
    model, source, target = map(Path, sys.argv[1:])
    if not model.is_dir():
        materialise(model)
    tokenizer = ChatTokenizer(str(model))
    with source.open() as rows, target.open("w") as file:
        for row in rows:
            file.write(json.dumps(encoded(tokenizer, json.loads(row))) + "\n")


if __name__ == "__main__":
    main()
