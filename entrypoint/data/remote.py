"""Data sets of the hub, by the `datasets` library: into its cache once, then read from there."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from entrypoint import hub
from entrypoint.data.batches import ROWS, Batch, Wanted, columnar
from entrypoint.errors import DataError

REFERENCE = re.compile(r"(?P<name>[^:@]+)(?::(?P<config>[^@]+))?(?:@(?P<revision>\S+))?")
HELD_OUT = ("validation", "eval", "test")
"""Splits that are taken as evaluation rows, the first that is there."""


def fetch(reference: str, split: str | None, environ: Mapping[str, str]) -> "Remote":
    """The data set that NAME[:CONFIG][@REVISION] names on the hub.

    Args:
        split: one, or a slice of one (`train[:10%]`); None takes train, and validation or test.

    Raises:
        DataError: it is not there, is gated, has no such configuration or split, cannot be read.
    """
    match = REFERENCE.fullmatch(reference)
    found = match and hub.parse(match["name"])
    if match is None or found is None:
        raise DataError(
            f"there is no data at {reference}",
            where="--data or TRAIN_DATA",
            hint="give a file, a folder, a pattern, `-` for standard input, a data set of the hub "
            "as ORG/NAME[:CONFIG][@REVISION], or `embedded`",
        )
    target = hub.Reference(repo=found.repo, revision=match["revision"] or "main")
    if hub.is_offline(environ):
        # what is in the cache of `datasets` is read without asking
        commit = target.revision if target.revision != "main" else None
    else:
        try:
            commit = hub.Hub(environ).dataset_commit(target)
        except Exception as error:
            raise _explained(error, target, environ) from error
    parts = _load(target, match["config"], commit, split, environ)
    return Remote(reference=reference, commit=commit, split=split, parts=parts)


class Remote:
    """A data set in the cache of `datasets`.

    Args:
        commit: the revision that was read, where the hub was asked.
        parts: "train", and "eval" where there are held-out rows.
    """

    def __init__(
        self, *, reference: str, commit: str | None, split: str | None, parts: Mapping[str, Any]
    ) -> None:
        self.reference, self.commit, self.split = reference, commit, split
        self.parts = parts

    @property
    def name(self) -> str:
        return self.reference if self.split is None else f"{self.reference}, {self.split}"

    @property
    def has_evaluation(self) -> bool:
        return "eval" in self.parts

    def schema(self) -> pa.Schema:
        first = next(self.batches("train", None), None)
        if first is None:
            raise DataError("the split has no rows", where=self.name)
        return first.table.schema

    def batches(self, part: str, wanted: Wanted) -> Iterator[Batch]:
        first = 1
        for table in self.parts[part].with_format("arrow").iter(batch_size=ROWS):
            yield columnar(table, f"{self.name} ({part})", first, wanted)
            first += table.num_rows

    def content(self) -> list[str]:
        return [f"{part} {rows._fingerprint}" for part, rows in self.parts.items()]

    def describe(self) -> dict[str, Any]:
        return {"reference": self.reference, "revision": self.commit, "split": self.split}


def _load(
    target: hub.Reference,
    config: str | None,
    commit: str | None,
    split: str | None,
    environ: Mapping[str, str],
) -> dict[str, Any]:
    import datasets

    from entrypoint.noise import hide_loading_bars

    hide_loading_bars()
    name = target.repo
    try:
        loaded = datasets.load_dataset(
            name, config, revision=commit, split=split, token=environ.get("HF_TOKEN") or False
        )
    except Exception as error:
        what = _words(error)
        if isinstance(error, ValueError):
            # no such configuration or split: it lists those that there are
            hint = "name a configuration as ORG/NAME:CONFIG, and a split with --split"
            raise DataError(" ".join(what), where=name, hint=hint) from error
        if isinstance(error, datasets.exceptions.DatasetNotFoundError) and "gated" in what[0]:
            # `datasets` drops what the hub said, which `hub` would explain
            raise DataError(
                f"{name} is gated: its owner wants you to accept conditions first",
                where=f"{hub.Hub(environ).endpoint}/datasets/{name}",
                hint="accept them there, and set HF_TOKEN to a token of the account that did",
            ) from error
        if isinstance(error, datasets.exceptions.DatasetsError | ConnectionError | RuntimeError):
            causes = [what[0], *(_words(error.__cause__)[:1] if error.__cause__ else ())]
            said = ": ".join(causes)
            raise DataError(f"the data set cannot be read: {said}", where=name) from error
        raise _explained(error, target, environ) from error
    if split is not None:
        return {"train": loaded}
    if "train" not in loaded:
        raise DataError(
            f"{name} has no split train",
            where="--split or TRAIN_SPLIT",
            hint=f"its splits are: {', '.join(loaded)}; name one with --split",
        )
    held_out = next((loaded[part] for part in HELD_OUT if part in loaded), None)
    return {"train": loaded["train"]} | ({} if held_out is None else {"eval": held_out})


def _words(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]


def _explained(error: Exception, target: hub.Reference, environ: Mapping[str, str]) -> Exception:
    """What a failure of the hub means to the user; itself when it is ours."""
    endpoint = hub.Hub(environ).endpoint
    known = bool(environ.get("HF_TOKEN"))
    found = hub.explain(error, target, endpoint, has_token=known, noun="data set")
    return DataError(found.what, where=found.where, hint=found.hint) if found else error
