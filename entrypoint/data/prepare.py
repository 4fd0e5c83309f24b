"""Any data set to `train.jsonl`, `eval.jsonl` and `dataset.json`: read, checked, split, written."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from entrypoint.data import places, shapes
from entrypoint.data.arrays import Seen, mixed
from entrypoint.data.batches import Batch, ahead
from entrypoint.data.checks import Findings, structure
from entrypoint.data.columns import MIXED, ColumnError
from entrypoint.data.convert import Encoded, canonical, encode, unread
from entrypoint.data.folder import DESCRIPTION, EVAL, TRAIN, Prepared, Request, describe
from entrypoint.data.shapes import Shape
from entrypoint.data.source import Source
from entrypoint.data.wanted import refuse_mixed, wanted_schema
from entrypoint.data.writing import RowFile, Writer
from entrypoint.errors import DataError, SettingsError
from entrypoint.files import share, write_json

TRAINING_ONLY = ("leakage",)
"""Checks that say nothing about evaluation rows."""


class Inspector(Protocol):
    """Looks at canonical rows on the way: token counts, near duplicates, leakage."""

    def met(self, table: pa.Table, where: Callable[[int], str]) -> Mapping[str, Any]:
        """Check -> bool for each row.

        Args:
            where: a row's place in words.
        """

    def keep(self, part: str, chosen: Any) -> None:
        """These of the same rows are written to `part` ("train" or "eval")."""


def prepare(
    source: Source,
    request: Request,
    folder: Path | None,
    inspectors: tuple[Inspector, ...] = (),
) -> Prepared:
    """Write the rows of `source` to a folder that appears whole.

    Args:
        folder: must not exist; None checks everything and writes nothing.

    Raises:
        DataError: something is wrong with the data; names file and line or row.
        SettingsError: options that do not fit the source, or a folder that is taken.
    """
    if not 0 <= request.eval_fraction < 1:
        raise SettingsError(
            f"the share of held-out rows is from 0 to below 1, not {request.eval_fraction}",
            where="--eval-fraction or TRAIN_EVAL_FRACTION",
        )
    if source.has_evaluation and request.eval_fraction:
        raise SettingsError(
            "the source has evaluation rows of its own",
            where="--eval-fraction or TRAIN_EVAL_FRACTION",
            hint="leave it out, or name the training rows alone with --data",
        )
    schema = source.schema()
    shape = shapes.detect(schema, request.format, request.columns, where=source.name)
    wanted = wanted_schema(schema, shape, source.name)
    with _scratch(folder) as scratch:
        run = _Run(source, request, shape, wanted, scratch, inspectors)
        run.unread = tuple(name for name in schema.names if name not in wanted.names)
        try:
            prepared = run.to_end()
        finally:
            for writer in run.writers.values():
                writer.close()
        if folder is not None and scratch is not None:
            write_json(scratch / DESCRIPTION, describe(source, request, prepared))
            share(scratch)
            try:
                scratch.rename(folder)
            except OSError as error:
                raise _taken(folder) from error
            prepared = _moved(prepared, folder)
    return prepared


class _Run:
    """One pass over a source."""

    def __init__(
        self, source: Source, request: Request, shape: Shape, wanted: pa.Schema,
        scratch: Path | None, inspectors: tuple[Inspector, ...],
    ) -> None:  # fmt: skip
        self.source, self.request, self.shape, self.wanted = source, request, shape, wanted
        self.inspectors = inspectors
        self.findings = Findings(request.policies)
        self.unread: tuple[str, ...] = ()
        self.rows, self.seen, self.questions = 0, Seen(), Seen()
        self.writers = {
            part: Writer(scratch / name if scratch else Path(os.devnull), order=request.shuffle)
            for part, name in (("train", TRAIN), ("eval", EVAL))
        }
        self.splits = request.eval_fraction > 0

    def to_end(self) -> Prepared:
        parts = ("train", "eval") if self.source.has_evaluation else ("train",)
        for part in parts:
            self._part(part)
        request, source = self.request, self.source
        seed = request.seed if request.shuffle else None
        train = self.writers["train"].finish(seed=seed, most=request.max_rows)
        held_out = self.writers["eval"].finish()
        if not self.rows:
            raise DataError(
                "the file has no rows", where=source.name, hint="one JSON object a line"
            )
        if not train.rows:
            raise DataError(
                "no row is left to train on",
                where=source.name,
                hint="the policies left all out, or --eval-fraction took all of a few rows",
            )
        if self.splits and not held_out.rows:
            raise DataError(
                f"an evaluation share of {request.eval_fraction:g} of {train.rows} rows leaves no "
                "evaluation rows",
                where=source.name,
                hint="raise --eval-fraction, add rows, or set --eval-fraction 0 to hold out none; "
                "of rows that were split before with the same seed none is left to hold out",
            )
        evaluation = held_out if held_out.rows else None
        if evaluation is None and held_out.path.is_file():
            held_out.path.unlink()
        return Prepared(
            shape=self.shape, train=train, evaluation=evaluation, rows=self.rows,
            unread=self.unread, findings=self.findings,
        )  # fmt: skip

    def _part(self, part: str) -> None:
        most = None if self.request.shuffle or part == "eval" else self.request.max_rows

        def work(batch: Batch) -> _Worked:
            return _work(batch, self.shape)

        for worked in ahead(self.source.batches(part, self.wanted), work):
            self._take(worked, part)
            if most is not None and self.writers["train"].rows >= most:
                return

    def _field(self, worked: "_Worked", check: str) -> Callable[[Any], str]:
        def where(row: Any) -> str:
            found = places.field(self.shape, check, worked.table.slice(row, 1).to_pylist()[0])
            return f"{worked.where(row)}, {found}"

        return where

    def _take(self, worked: "_Worked", part: str) -> None:
        """Check against the rows so far, split and write."""
        table, encoded, where = worked.table, worked.encoded, worked.where
        numbers = np.arange(self.rows + 1, self.rows + 1 + table.num_rows)
        self.rows += table.num_rows
        drop = np.zeros(table.num_rows, bool)
        for name, met in worked.met.items():
            drop |= self.findings.note(name, met & ~drop, self._field(worked, name))
        if drop.any():
            kept = np.flatnonzero(~drop)
            table, numbers = table.take(pa.array(kept)), numbers[kept]
            encoded = encoded.filter(~drop)
            where = lambda row: worked.where(kept[row])  # noqa: E731
        first = self.seen.add(encoded.rows, numbers)
        again = lambda row: f"{where(row)}, as row {first[row]}"  # noqa: E731
        drop = self.findings.note("duplicates", first > 0, again)
        if part == "eval":
            known = self.questions.find(encoded.questions)
            shared = lambda row: f"{where(row)}, as row {known[row]}"  # noqa: E731
            drop |= self.findings.note("overlap", (known > 0) & ~drop, shared)
        elif self.source.has_evaluation:
            self.questions.add(encoded.questions, numbers)
        held_out = np.full(len(drop), part == "eval")
        if self.splits:
            request = self.request
            held_out = is_held_out(encoded.questions, request.eval_fraction, request.seed)
        for inspector in self.inspectors:
            for name, met in inspector.met(table, where).items():
                concerned = ~drop & ~held_out if name in TRAINING_ONLY else ~drop
                drop |= self.findings.note(name, met & concerned, where)
        room = self.request.max_rows
        if room is not None and part == "train" and not self.request.shuffle:
            drop |= np.cumsum(~drop & ~held_out) > room - self.writers["train"].rows
        for name, chosen in (("train", ~drop & ~held_out), ("eval", ~drop & held_out)):
            if chosen.any():
                written = encoded if chosen.all() else encoded.filter(chosen)
                self.writers[name].add(written.lines, written.rows)
                for inspector in self.inspectors:
                    inspector.keep(name, chosen)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Worked:
    """What can be said of some rows without the others."""

    batch: Batch
    table: pa.Table
    met: Mapping[str, Any]
    encoded: Encoded

    def where(self, row: int) -> str:
        return self.batch.where(int(row))


def _work(batch: Batch, shape: Shape) -> _Worked:
    refuse_mixed(batch, shape)
    try:
        table = canonical(batch.table, shape)
    except ColumnError as error:
        raise DataError(str(error), where=batch.where(error.row), hint=MIXED) from error
    met = structure(table) | unread(batch.table, shape)
    return _Worked(batch=batch, table=table, met=met, encoded=encode(table))


def is_held_out(questions: Any, fraction: float, seed: int) -> Any:
    """Which rows are evaluation rows: by the hash of their question alone, so that no added row
    moves another one, and that no question is on both sides."""
    return mixed(questions, seed) < np.uint64(min(fraction, 1) * (2**64 - 1))


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path | None]:
    if folder is None:
        yield None
        return
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise SettingsError(
            f"the folder cannot be written: {error.strerror}", where=folder.parent
        ) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_free(folder: Path) -> None:
    """Make sure that a folder can be made.

    Raises:
        SettingsError: it is there.
    """
    if folder.exists():
        raise _taken(folder)


def _taken(folder: Path) -> SettingsError:
    return SettingsError(
        f"{folder} exists already",
        where="--output or TRAIN_PREPARE_OUTPUT",
        hint="give a folder that does not exist yet",
    )


def _moved(prepared: Prepared, folder: Path) -> Prepared:
    def move(file: RowFile) -> RowFile:
        return replace(file, path=folder / file.path.name)

    held_out = prepared.evaluation
    return replace(prepared, train=move(prepared.train), evaluation=held_out and move(held_out))
