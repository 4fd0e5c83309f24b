"""The data set of a run: found, prepared into the cache if need be, ready to be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from entrypoint.data.checks import policies
from entrypoint.data.folder import DESCRIPTION, EVAL, TRAIN, Request, cache_key, open_prepared
from entrypoint.data.prepare import prepare
from entrypoint.data.shapes import Task
from entrypoint.data.source import EMBEDDED_FOLDER, EMBEDDED_PAIRS, Source, locate
from entrypoint.data.writing import RowFile
from entrypoint.errors import DataError, SettingsError
from entrypoint.models.embedded.materialise import cache_folder
from entrypoint.progress import say

HINTS: Mapping[Task, str] = {
    "sft": "rows with answers: messages, instruction and output, prompt and completion",
    "preference": "rows with a prompt, a chosen and a rejected answer",
    "text": "rows with a text",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """What a run trains on and, when there is one, its held-out part."""

    reference: str
    task: Task = "sft"
    train: RowFile
    evaluation: RowFile | None


def find(
    reference: str,
    split: str | None,
    environ: Mapping[str, str],
    scratch: Path,
    embedded: Path = EMBEDDED_FOLDER,
) -> Source:
    """The source that --data names: local files, or a data set of the hub.

    Args:
        scratch: a folder for what comes from standard input.
        embedded: which of the built-in data sets `embedded` names.

    Raises:
        DataError: there is none.
        SettingsError: a split of local files.
    """
    files = locate(reference, scratch, embedded)
    if files is None:
        from entrypoint.data.remote import fetch

        return fetch(reference, split, environ)
    if split is not None:
        raise SettingsError(
            f"{reference} is on this machine and has no splits",
            where="--split or TRAIN_SPLIT",
            hint="give the file of the split as --data; --max-rows takes the first rows",
        )
    for path in files.left_out:
        say(f"{path} is left out: the evaluation rows are those of {files.evaluation[0].name}")
    return files


def load(
    reference: str,
    environ: Mapping[str, str],
    *,
    tasks: tuple[Task, ...] = ("sft", "text"),
    dry: bool = True,
) -> Dataset:
    """The canonical rows of what `reference` names.

    A folder that `train prepare` wrote is taken as it is. Anything else is prepared into the cache,
    once for the same content.

    Args:
        tasks: what the rows may be for; `embedded` is the one for the first of them.
        dry: check everything and write nothing.

    Raises:
        DataError: nothing is there, it is malformed, or it is for none of the tasks.
    """
    folder = Path(reference).expanduser()
    if (folder / DESCRIPTION).is_file():
        return _opened(reference, folder, tasks, verify=True)
    request = Request(policies=policies(()))
    with TemporaryDirectory(prefix="tunecask-") as scratch:
        embedded = EMBEDDED_PAIRS if tasks[0] == "preference" else EMBEDDED_FOLDER
        source = find(reference, None, environ, Path(scratch), embedded)
        cached = cache_folder(environ) / "datasets" / cache_key(source, request)
        if cached.is_dir():
            return _opened(reference, cached, tasks)
        try:
            prepared = prepare(source, request, None if dry else cached)
        except SettingsError:
            # another run was faster; its folder is the same
            if not cached.is_dir():
                raise
            return _opened(reference, cached, tasks)
    _check_task(prepared.shape.task, tasks, reference)
    for name, found in prepared.findings.by_check.items():
        if found.count:
            say(f"{reference}: {found.count:,} rows, {name} ({found.policy}): {found.examples[0]}")
    return Dataset(
        reference=reference,
        task=prepared.shape.task,
        train=_at(prepared.train, cached / TRAIN),
        evaluation=prepared.evaluation and _at(prepared.evaluation, cached / EVAL),
    )


def _opened(
    reference: str, folder: Path, tasks: tuple[Task, ...], *, verify: bool = False
) -> Dataset:
    described, train, evaluation = open_prepared(folder.resolve(), verify=verify)
    _check_task(described["task"], tasks, reference)
    return Dataset(reference=reference, task=described["task"], train=train, evaluation=evaluation)


def _check_task(found: Task, wanted: tuple[Task, ...], reference: str) -> None:
    if found not in wanted:
        raise DataError(
            f"the rows are for {found}, not {wanted[0]}",
            where=reference,
            hint=f"give {', or '.join(HINTS[task] for task in wanted)}",
        )


def _at(file: RowFile, path: Path) -> RowFile:
    return RowFile(path=path, rows=file.rows, sha256=file.sha256, longest=file.longest)
