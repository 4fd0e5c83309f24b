"""Small data sets in every shape, the conversation that each stands for, and ways to write them."""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from entrypoint.data.checks import policies
from entrypoint.data.folder import Prepared, Request
from entrypoint.data.prepare import prepare
from entrypoint.data.source import locate

COUNT = 30


def text(kind: str, number: int) -> str:
    return f'{kind} "{number}"\n\té\\ 中'


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def said(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"from": role, "value": content} for role, content in turns]


def sft(n: int, question: str | None = None, system: bool = False) -> dict[str, Any]:
    first = [turn("system", text("s", n))] if system else []
    asked = [turn("user", question or text("q", n)), turn("assistant", text("a", n))]
    return {"messages": [*first, *asked]}


def preferred(n: int, *, system: bool = False) -> dict[str, Any]:
    return {
        "prompt": sft(n, system=system)["messages"][:-1],
        "chosen": [turn("assistant", text("a", n))],
        "rejected": [turn("assistant", text("r", n))],
    }


Q, A, R, S = (lambda n, kind=kind: text(kind, n) for kind in "qars")
Row = Callable[[int], dict[str, Any]]
FLAT: dict[str, tuple[Row, Row]] = {
    "alpaca": (lambda n: {"instruction": Q(n), "output": A(n)}, sft),
    "alpaca-input": (
        lambda n: {"instruction": Q(n), "input": R(n) if n % 2 else "", "output": A(n)},
        lambda n: sft(n, f"{Q(n)}\n\n{R(n)}" if n % 2 else None),
    ),
    "prompt-completion": (lambda n: {"prompt": Q(n), "completion": A(n)}, sft),
    "question-answer": (lambda n: {"question": Q(n), "answer": A(n)}, sft),
    "system": (
        lambda n: {"system": S(n), "prompt": Q(n), "completion": A(n)},
        lambda n: sft(n, system=True),
    ),
    "text": (lambda n: {"text": Q(n)}, lambda n: {"text": Q(n)}),
    "preference": (lambda n: {"prompt": Q(n), "chosen": A(n), "rejected": R(n)}, preferred),
    "preference-system": (
        lambda n: {"system": S(n), "prompt": Q(n), "chosen": A(n), "rejected": R(n)},
        lambda n: preferred(n, system=True),
    ),
}
NESTED: dict[str, tuple[Row, Row]] = {
    "messages": (lambda n: sft(n), sft),
    "messages-turns": (
        lambda n: {"messages": [*sft(n, system=True)["messages"], *sft(n + 1)["messages"]]},
        lambda n: {"messages": [*sft(n, system=True)["messages"], *sft(n + 1)["messages"]]},
    ),
    "sharegpt": (lambda n: {"conversations": said(("human", Q(n)), ("gpt", A(n)))}, sft),
    "sharegpt-system": (
        lambda n: {"system": S(n), "conversations": said(("human", Q(n)), ("gpt", A(n)))},
        lambda n: sft(n, system=True),
    ),
    "preference-lists": (preferred, preferred),
    "preference-whole": (
        lambda n: {
            "chosen_conversations": [turn("user", Q(n)), turn("assistant", A(n))],
            "rejected_conversations": [turn("user", Q(n)), turn("assistant", R(n))],
        },
        preferred,
    ),
    "preference-whole-prompt": (
        lambda n: {
            "prompt": Q(n),
            "chosen": [turn("user", Q(n)), turn("assistant", A(n))],
            "rejected": [turn("user", Q(n)), turn("assistant", R(n))],
        },
        preferred,
    ),
}
SHAPES = FLAT | NESTED


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _separated(path: Path, rows: list[dict[str, Any]], delimiter: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def _arrow(path: Path, rows: list[dict[str, Any]], stream: bool) -> None:
    table = pa.Table.from_pylist(rows)
    opener = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opener(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def _zstd(path: Path, rows: list[dict[str, Any]]) -> None:
    with pa.output_stream(path, compression="zstd") as file:
        file.write(lines(rows))


Write = Callable[[Path, list[dict[str, Any]]], Any]
WRITERS: dict[str, Write] = {
    "rows.jsonl": lambda path, rows: path.write_bytes(lines(rows)),
    "rows.json": lambda path, rows: path.write_text(json.dumps(rows, indent=1), "utf-8"),
    "rows.csv": lambda path, rows: _separated(path, rows, ","),
    "rows.tsv": lambda path, rows: _separated(path, rows, "\t"),
    "rows.parquet": lambda path, rows: pyarrow.parquet.write_table(
        pa.Table.from_pylist(rows), path
    ),
    "rows.arrow": lambda path, rows: _arrow(path, rows, stream=False),
    "stream.arrow": lambda path, rows: _arrow(path, rows, stream=True),
    "rows.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(lines(rows))),
    "rows.jsonl.bz2": lambda path, rows: path.write_bytes(bz2.compress(lines(rows))),
    "rows.jsonl.xz": lambda path, rows: path.write_bytes(lzma.compress(lines(rows))),
    "rows.jsonl.zst": _zstd,
    "no-suffix": lambda path, rows: path.write_bytes(lines(rows)),
}
FLAT_ONLY = ("rows.csv", "rows.tsv")


def run(source: Path | str, folder: Path | None, *given: str, **asked: Any) -> Prepared:
    """Prepare a local source; `given` are policies."""
    request = Request(policies=policies(given), **asked)
    scratch = Path(source).parent
    found = locate(str(source), scratch)
    assert found is not None
    return prepare(found, request, folder)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
