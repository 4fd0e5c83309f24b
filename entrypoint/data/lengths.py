"""How many tokens rows have and share, from a sample of them, for a plan; imports no torch."""

import functools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from entrypoint.data.chat_template import ChatTemplate
from entrypoint.data.dataset import Dataset
from entrypoint.data.rows import Row, conversations
from entrypoint.data.shapes import Task
from entrypoint.data.windows import alike, best_fit, twins
from entrypoint.models.companions import FAST

SAMPLE = 512
"""Rows that are looked at."""
STEPS_OF_SAMPLE = 1024
"""Rows that are drawn from these, to see what steps they make."""
MARKED = 5
"""Tokens that a chat template writes around a message, where the model's is not there."""
CHARACTERS_OF_TOKEN = 3.5
"""Of English text, where the model's tokenizer is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequenced:
    """A row as a model reads it, or one of the two of a pair."""

    tokens: tuple[int, ...]
    labels: int
    """Tokens that a loss is computed for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Rows of a data set in tokens."""

    rows: tuple[tuple[Sequenced, ...], ...]
    """A sample; two sequences for each pair."""
    counted: bool
    """By the model's tokenizer; otherwise estimated from characters."""
    longest: int
    """Tokens of the longest sequence of the whole set, estimated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """What steps are made of."""

    tokens: int
    """Computed in the largest forward pass: beginnings that rows share once, padding included."""
    cells: int
    """In its attention, where each row is whole and padded to its group's longest."""
    labels: int
    """In it."""
    passes: int
    """Forward passes of a step, at most."""
    rows: int
    """Of a step; two of each pair."""
    mean_tokens: float
    """Of a step, padding not counted."""
    mean_computed: float
    mean_labels: float

    @property
    def mean_row(self) -> float:
        """Tokens of a row, in the mean."""
        return self.mean_tokens / self.rows


def look(dataset: Dataset, folder: Path | None, max_seq_len: int) -> Lengths:
    """Rows of a data set in tokens.

    Args:
        folder: the model's, if it has a tokenizer.json.
    """
    lines = list(sample(dataset.train.path)) or [blank(dataset)]
    rows = [json.loads(line) for line in lines]
    made = [pieces(row, dataset.task) for row in rows]
    texts = [text for row in made for sequence in row for _, text, _ in sequence]
    encoded = iter(encode(texts, folder))
    whole = iter(written(rows, folder) if folder and dataset.task != "text" else ())
    found, share = [], 0.0
    for line, row in zip(lines, made, strict=True):
        sequences = [_sequenced(sequence, encoded, next(whole, None)) for sequence in row]
        share = max(share, max(len(one.tokens) for one in sequences) / len(line))
        found.append(tuple(_cut(one, max_seq_len) for one in sequences))
    longest = max(len(each.tokens) for row in found for each in row)
    return Lengths(
        rows=tuple(found),
        counted=folder is not None,
        longest=max(longest, min(int(dataset.train.longest * share), max_seq_len)),
    )


def _sequenced(
    sequence: list[tuple[int, str, bool]],
    encoded: Iterator[Sequence[int]],
    whole: Sequence[int] | None,
) -> Sequenced:
    """A sequence, made of its texts where the chat template has not written it."""
    tokens: list[int] = []
    labels = 0
    for mark, _, trained in sequence:
        ids = next(encoded)
        tokens += (mark,) * (MARKED if mark else 1)
        tokens += ids
        labels += (len(ids) + 1) * trained
    return Sequenced(tokens=tuple(tokens if whole is None else whole), labels=labels)


def _cut(one: Sequenced, limit: int) -> Sequenced:
    """What a row of at most so many tokens has of it: answers are at the end."""
    labels = one.labels - max(len(one.tokens) - limit, 0)
    return Sequenced(tokens=one.tokens[:limit], labels=max(labels, 1))


def written(rows: Sequence[Row], folder: Path) -> list[Sequence[int] | None]:
    """Conversations as the model's chat template writes them, in tokens. None stands for what it
    refuses; which row that is, is said when all of them are looked at."""
    texts: list[str | None] = []
    try:
        template = ChatTemplate.of(folder)
    except TemplateError:
        return []
    for conversation in conversations(rows):
        try:
            texts.append(template.render(conversation))
        except TemplateError:
            texts.append(None)
    ids = iter(encode([text for text in texts if text is not None], folder))
    return [None if text is None else next(ids) for text in texts]


def sample(path: Path) -> Iterator[str]:
    """Up to SAMPLE lines from everywhere in a file of rows; none without a file."""
    if not path.is_file():
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        for number in range(SAMPLE):
            if (start := size * number // SAMPLE) > file.tell():
                file.seek(start)
                file.readline()
            if line := file.readline():
                yield line.decode("utf-8")


def blank(dataset: Dataset) -> str:
    """A row as long as the longest, for a set that is not prepared yet."""
    text = "x " * (dataset.train.longest // 2)
    said = [{"role": "assistant", "content": text}]
    row = {"prompt": [], "chosen": said, "rejected": said, "messages": said, "text": text}
    return json.dumps(row)


def pieces(row: Mapping[str, Any], task: Task) -> list[list[tuple[int, str, bool]]]:
    """For each sequence of a row its texts, each with a number for who says it, and whether it is
    trained on. The number stands for what a chat template writes around it."""
    match task:
        case "text":
            return [[(0, row["text"], True)]]
        case "preference":
            return [
                [*_said(row["prompt"], False), *_said(row[side], True)]
                for side in ("chosen", "rejected")
            ]
    return [_said(row["messages"], True)]


def _said(messages: list[dict[str, Any]], trained: bool) -> list[tuple[int, str, bool]]:
    roles = {"system": -1, "user": -2, "assistant": -3, "tool": -4}
    return [
        (
            roles.get(message["role"], -5),
            (message.get("content") or "") + str(message.get("tool_calls") or ""),
            trained and message["role"] == "assistant",
        )
        for message in messages
    ]


def encode(texts: list[str], folder: Path | None) -> list[Sequence[int]]:
    """Texts as tokens: by the model's tokenizer, or as many as English would have."""
    if folder is None:
        return [[hash(part) for part in _parts(text)] for text in texts]
    made = _tokenizer(folder / FAST, (folder / FAST).stat().st_mtime_ns)
    return [found.ids for found in made.encode_batch(texts, add_special_tokens=False)]


@functools.lru_cache(maxsize=1)
def _tokenizer(path: Path, _: int) -> Any:
    """Of a file, which may have changed since it was last asked for."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(path))
    made.no_truncation()
    made.no_padding()
    return made


def _parts(text: str) -> list[str]:
    ends = [round(CHARACTERS_OF_TOKEN * (number + 1)) for number in range(len(text))]
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, ends, strict=False) if start < len(text)]


@functools.lru_cache(maxsize=64)
def steps_of(lengths: Lengths, rows_per_step: int, window: int | None) -> Steps:
    """What the steps of a process are made of, from steps that are drawn from the sample.

    Args:
        rows_per_step: of the process; a pair is one row.
        window: tokens of a forward pass; None pads rows to the longest.
    """
    drawn = random.Random(0)
    count = max(1, min(STEPS_OF_SAMPLE // rows_per_step, SAMPLE))
    largest = Pass(tokens=lengths.longest, cells=lengths.longest, labels=1)
    passes, total, computed, labels = 1, 0, 0, 0
    for _ in range(count):
        rows = drawn.choices(lengths.rows, k=rows_per_step)
        made = [_pass(group, window) for group in _groups(rows, window)]
        passes = max(passes, len(made))
        largest = max(largest, *made, key=lambda one: one.tokens + one.cells)
        computed += sum(one.tokens for one in made)
        labels += sum(one.labels for one in made)
        total += sum(len(each.tokens) for row in rows for each in row)
    return Steps(
        tokens=largest.tokens,
        cells=largest.cells,
        labels=largest.labels,
        passes=passes,
        rows=rows_per_step * len(lengths.rows[0]),
        mean_tokens=total / count,
        mean_computed=computed / count,
        mean_labels=labels / count,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One forward pass; as in Steps."""

    tokens: int
    cells: int
    labels: int


def _groups(rows: Sequence[tuple[Sequenced, ...]], window: int | None) -> list[list[Sequenced]]:
    """Sequences that share a forward pass; both of a pair are in the same."""
    if window is None:
        return [[each for row in rows for each in row]]
    sizes = [sum(len(each.tokens) for each in row) for row in rows]
    return [
        [each for number in group for each in rows[number]] for group in best_fit(sizes, window)
    ]


def _pass(sequences: list[Sequenced], window: int | None) -> Pass:
    sizes = [len(each.tokens) for each in sequences]
    labels = sum(each.labels for each in sequences)
    if window is None:
        padded = len(sizes) * max(sizes)
        return Pass(tokens=padded, cells=padded, labels=labels)
    shared = twins([each.tokens for each in sequences])
    own = sum(place == first for place, first in enumerate(shared)) if shared else sum(sizes)
    cells = sum(len(group) * sizes[group[0]] for group in alike(sizes))
    return Pass(tokens=own, cells=cells, labels=labels)
