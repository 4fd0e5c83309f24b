"""Models of the hub in the cache: fetched once, verified, whole or not at all."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from entrypoint import hub
from entrypoint.errors import DoesNotFitError, ModelError, SettingsError
from entrypoint.files import write_text
from entrypoint.hub import Hub, Reference, Snapshot
from entrypoint.models.companions import FAST, NATIVE
from entrypoint.models.embedded.materialise import cache_folder
from entrypoint.models.hashing import Hashing
from entrypoint.models.weights import CONVERT, INDEX_FILE, OTHER_WEIGHTS
from entrypoint.progress import Progress, gb, say

DESCRIPTION = (
    "config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
    INDEX_FILE,
)
"""What a card is made from, beside the headers of the weights; without a tokenizer.json also the
tokenizer, of which there are two kinds."""
SMALL_FILES = (
    *DESCRIPTION,
    "generation_config.json",
    FAST,
    NATIVE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Everything but weights that training, transformers or the law wants."""

LOCK_TIMEOUT_S = 2 * 60 * 60
SPARE_BYTES = 50_000_000
"""Left free on the disk, for locks and what others write meanwhile."""


class Download:
    """One repository in the cache: models/hub/<org>--<name>/<commit>/, a plain folder.

    Args:
        reference: what the user asked for.
        environ: TRAIN_CACHE, and what huggingface_hub reads.
        commit: what the revision stands for, where that is decided already.
    """

    def __init__(
        self, reference: Reference, environ: Mapping[str, str], commit: str | None = None
    ) -> None:
        self.reference = reference
        self._pinned = Reference(repo=reference.repo, revision=commit or reference.revision)
        self.root = cache_folder(environ) / "models" / "hub" / reference.repo.replace("/", "--")
        self._environ = environ
        self._snapshot: Snapshot | None = None
        self._hub: Hub | None = None

    @property
    def hub(self) -> Hub:
        # made when it is needed: importing huggingface_hub takes a second
        self._hub = self._hub or Hub(self._environ)
        return self._hub

    @property
    def snapshot(self) -> Snapshot:
        """What the hub has.

        Raises:
            ModelError: it has no such model, or cannot be asked.
        """
        self._snapshot = self._snapshot or self.hub.snapshot(self._pinned)
        return self._snapshot

    @property
    def folder(self) -> Path:
        """Where the whole model is or will be."""
        return self.cached() or self.root / self.snapshot.commit

    def cached(self) -> Path | None:
        """The whole model, if it is in the cache.

        Without a network the commit that the revision stood for at the last download counts.

        Raises:
            ModelError: it is not there, and there is no network; or the hub refuses.
        """
        revision = self._pinned.revision
        if hub.COMMIT.fullmatch(revision) and (self.root / revision).is_dir():
            return self.root / revision
        if hub.is_offline(self._environ):
            if (folder := self._remembered()) is None:
                raise ModelError(
                    f"there is no folder {self.reference}, it is not in the cache of models, "
                    "and HF_HUB_OFFLINE forbids to fetch it",
                    where=self.root,
                    hint="unset HF_HUB_OFFLINE, or fetch it once with a network and this cache",
                )
            return folder
        try:
            folder = self.root / self.snapshot.commit
        except hub.Unreachable as error:
            if (kept := self._remembered()) is None:
                raise
            say(f"{error.what}; going on with {self.reference} as fetched before: {kept}")
            return kept
        return folder if folder.is_dir() else None

    def describe_into(self, folder: Path, *, tokenizer: bool = False) -> None:
        """Write the few files that a card is made from, and the tokenizer if it is wanted."""
        wanted = DESCRIPTION if FAST in self.snapshot.files else (*DESCRIPTION, NATIVE)
        wanted = (*wanted, FAST) if tokenizer else wanted
        for name in self._present(wanted):
            self._fetch_one(name, folder)

    @contextmanager
    def small_files(self) -> Iterator[Path]:
        """Fetch all but the weights, and give the folder that they are in for now."""
        with self._locked():
            if not self.folder.is_dir():
                self._fetch(self._present(SMALL_FILES))
            # whoever completes the model renames this folder, and needs the lock for it
            yield self.folder if self.folder.is_dir() else self._staging

    def complete(self, weights: Callable[[Path], tuple[str, ...]]) -> Path:
        """Fetch what is missing and return the folder.

        Args:
            weights: names of the weight files, from a folder with the small files.
        """
        if (folder := self.cached()) is not None:
            return folder
        with self._locked():
            # another process may have been faster
            if not self.folder.is_dir():
                self._fetch(self._present(SMALL_FILES))
                names = weights(self._staging)
                self.check_weights(names)
                self.check_room(names)
                self._fetch(names)
                self._staging.rename(self.folder)
        write_text(self._ref, self.snapshot.commit)
        return self.folder

    def check_weights(self, names: Iterable[str]) -> None:
        """Make sure that the hub has the weights, as safetensors.

        Raises:
            ModelError: it has not.
        """
        files = self.snapshot.files
        missing = sorted(name for name in names if name not in files or "/" in name)
        if not missing:
            return
        others = sorted(self._present(OTHER_WEIGHTS))
        if others and not any(name.endswith(".safetensors") for name in files):
            raise ModelError(
                f"{self.reference} has its weights as {others[0]}, not as safetensors",
                where=self.page,
                hint=f"look for a copy of the model in safetensors; or {CONVERT}",
            )
        raise ModelError(f"{self.reference} has no {missing[0]}", where=self.page)

    def check_room(self, names: Iterable[str]) -> None:
        """Make sure that the cache's disk takes the files.

        Raises:
            DoesNotFitError: it does not.
        """
        files = self.snapshot.files
        needed = sum(files[name].size - self._have(name) for name in names) + SPARE_BYTES
        parent = next(path for path in self.root.absolute().parents if path.exists())
        free = shutil.disk_usage(parent).free
        if free < needed:
            raise DoesNotFitError(
                f"{self.reference} needs {gb(needed)} more in the cache, {gb(free)} are free",
                where=self.root,
                hint="free some room, or point TRAIN_CACHE at another disk",
            )

    @property
    def page(self) -> str:
        """Where a person sees the files."""
        return f"{self.hub.endpoint}/{self.reference.repo}/tree/{self.snapshot.commit}"

    @property
    def _staging(self) -> Path:
        return self.root / f"{self.snapshot.commit}.partial"

    @property
    def _ref(self) -> Path:
        return self.root / "refs" / self.reference.revision.replace("/", "%2F")

    def _remembered(self) -> Path | None:
        if not self._ref.is_file():
            return None
        folder = self.root / self._ref.read_text("utf-8").strip()
        return folder if folder.is_dir() else None

    def _present(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            name
            for name in self.snapshot.files
            if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)
        )

    def _have(self, name: str) -> int:
        whole, partial = self._staging / name, self._staging / f"{name}.incomplete"
        found = next((path for path in (whole, partial) if path.is_file()), None)
        return found.stat().st_size if found else 0

    def _fetch(self, names: tuple[str, ...]) -> None:
        """Fetch files into the staging folder; verified ones get their names."""
        files = self.snapshot.files
        todo = [name for name in names if not (self._staging / name).is_file()]
        if not todo:
            return
        total, done = sum(files[name].size for name in todo), sum(map(self._have, todo))
        resumed = f", {gb(done)} of it are there" if done else ""
        files_are = "1 file" if len(todo) == 1 else f"{len(todo)} files"
        say(f"fetching {self.reference}, {files_are} of {gb(total)}{resumed}: {self.root}")
        progress = Progress(total, done)
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            for name in todo:
                self._fetch_one(name, self._staging, progress.file_bar())
        except OSError as error:
            if isinstance(error, PermissionError):
                raise self._unwritable(error) from error
            raise DoesNotFitError(
                f"the model cannot be written to the cache: {error}",
                where=self._staging,
                hint="free some room and run again; what has been fetched is kept",
            ) from error
        finally:
            progress.close()

    def _fetch_one(self, name: str, folder: Path, bar: type[Any] | None = None) -> None:
        file = self.snapshot.files[name]
        partial = folder / f"{name}.incomplete"
        if partial.is_file() and partial.stat().st_size > file.size:
            partial.unlink()
        with Hashing(partial, file) as target:
            self.hub.download(self.snapshot, name, target, bar)
        if not target.matches:
            partial.unlink()
            raise ModelError(
                f"the hub sent other bytes than it announced for {name} of {self.reference}",
                where=f"{self.hub.endpoint}/{self.reference.repo}",
                hint="run again; if that does not help, a proxy or HF_ENDPOINT alters files",
            )
        partial.rename(folder / name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process of the machine downloads a commit; the lock of a dead one is free."""
        path = self.root / f"{self.snapshot.commit}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                say(f"another process is fetching {self.reference}; waiting for it")
                lock.acquire(timeout=LOCK_TIMEOUT_S, poll_interval=0.2)
        except Timeout:
            raise ModelError(
                f"another process is still fetching {self.reference} after {LOCK_TIMEOUT_S:.0f} s",
                where=path,
                hint="see what holds this file, end it and run again",
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> SettingsError:
        return SettingsError(
            f"the cache folder cannot be written: {error.strerror}",
            where=self.root,
            hint="point TRAIN_CACHE at a folder that you may write to",
        )
