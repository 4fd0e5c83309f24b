"""The model hub: what a repository holds, and its bytes. The only user of huggingface_hub."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from entrypoint.errors import ModelError

T = TypeVar("T")

REPO = r"\w[\w.-]*/\w[\w.-]*"
REPOSITORY = re.compile(rf"(?P<repo>{REPO})(?:@(?P<revision>\S+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_ENDPOINT = "https://huggingface.co"
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
"""How long an answer about a repository may take."""
PAUSES_S = (1, 2)
"""Between attempts of a request that failed for a passing reason."""
PASSING = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """ORG/NAME or ORG/NAME@REVISION."""

    repo: str
    revision: str = "main"
    """Branch, tag or commit."""

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """What the hub says of one file's content."""

    size: int
    """Bytes."""
    sha256: str | None
    """Of a large file."""
    git_id: str | None
    """Git's id (SHA-1) of a small file's content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One commit of a repository."""

    reference: Reference
    commit: str
    files: Mapping[str, RemoteFile]
    """By path in the repository."""


class Target(Protocol):
    """What bytes are appended to: a file, or something like it."""

    def write(self, data: bytes, /) -> int: ...

    def tell(self) -> int:
        """How many bytes there are."""

    def seek(self, position: int, /) -> int: ...

    def truncate(self) -> int: ...


class Unreachable(ModelError):
    """The hub does not answer for now; what is in the cache may serve."""


def parse(text: str) -> Reference | None:
    """The repository that `text` names, if it has the form of one."""
    match = REPOSITORY.fullmatch(text)
    if match is None or "--" in match["repo"] or ".." in match["repo"]:
        return None
    return Reference(repo=match["repo"], revision=match["revision"] or "main")


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether the user wants no network, in the words that huggingface_hub understands."""
    value = environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


class Hub:
    """The hub as HF_ENDPOINT and HF_TOKEN say. A token that was stored on disk is not used.

    Args:
        environ: the environment with these variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        from huggingface_hub import HfApi, constants

        # otherwise it asks the hub for a list of agents and writes it to HF_HOME, even in a dry run
        constants.HF_HUB_DISABLE_TELEMETRY = True
        # files go over HTTP in both directions: what Xet's own transfer fails with is not explained
        constants.HF_HUB_DISABLE_XET = True
        # what has come of a chunk is lost when a download stops; the default is 10 MB
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
        self.endpoint = (environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._token = environ.get("HF_TOKEN", "").strip() or None
        self.api = HfApi(endpoint=self.endpoint, token=self._token or False)

    def snapshot(self, reference: Reference) -> Snapshot:
        """The commit that the reference stands for now, and its files.

        Raises:
            ModelError: it is missing, private or renamed.
            Unreachable: the hub does not answer.
        """
        with self.explaining(reference):
            info = patiently(
                lambda: self.api.model_info(
                    reference.repo,
                    revision=reference.revision,
                    files_metadata=True,
                    timeout=TIMEOUT_S,
                )
            )
            if info.id != reference.repo:
                raise ModelError(
                    f"the hub has {reference.repo} under another name now: {info.id}",
                    where=f"{self.endpoint}/{info.id}",
                    hint=f"--model {info.id}",
                )
            files = {
                file.rfilename: RemoteFile(
                    size=file.size or 0,
                    sha256=file.lfs.sha256 if file.lfs else None,
                    git_id=None if file.lfs else file.blob_id,
                )
                for file in info.siblings or ()
            }
            if not info.sha or COMMIT.fullmatch(info.sha) is None:
                raise ValueError("it names no commit")
        return Snapshot(reference=reference, commit=info.sha, files=files)

    def dataset_commit(self, reference: Reference) -> str:
        """The commit that a data set's reference stands for now; failures are not explained."""
        ask = partial(self.api.dataset_info, reference.repo, revision=reference.revision)
        return str(patiently(lambda: ask(timeout=TIMEOUT_S)).sha)

    def header(self, snapshot: Snapshot, name: str) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape and format of the tensors in a safetensors file, from its header alone."""
        with self.explaining(snapshot.reference):
            header = patiently(
                lambda: self.api.parse_safetensors_file_metadata(
                    snapshot.reference.repo, name, revision=snapshot.commit, timeout=TIMEOUT_S
                )
            )
        return {name: (tuple(found.shape), found.dtype) for name, found in header.tensors.items()}

    def download(
        self,
        snapshot: Snapshot,
        name: str,
        file: Target,
        bar: type[Any] | None = None,
    ) -> None:
        """Append to `file` what is missing of a file in the repository.

        hf_hub_download is not used: in huggingface_hub 2.4.0 it deletes what it has of a file when
        it stops, so that nothing can be resumed. It calls the same http_get.
        https://github.com/huggingface/huggingface_hub/pull/4228

        Args:
            bar: the class of the progress bar, like tqdm's; None shows nothing.
        """
        from huggingface_hub.file_download import hf_hub_url, http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
        from huggingface_hub.utils.tqdm import silent_tqdm

        repo = snapshot.reference.repo
        url = hf_hub_url(repo, name, revision=snapshot.commit, endpoint=self.endpoint)
        headers = build_hf_headers(token=self._token or False)
        # a compressed answer could not be resumed at a byte of the file
        headers["Accept-Encoding"] = "identity"
        with self.explaining(snapshot.reference):
            patiently(
                lambda: http_get(
                    url,
                    file,  # type: ignore[arg-type]
                    resume_size=file.tell(),
                    headers=headers,
                    expected_size=snapshot.files[name].size,
                    displayed_filename=name,
                    tqdm_class=bar or silent_tqdm,
                ),
                # it retries all others itself
                statuses=(500, 502, 503, 504),
            )

    @contextmanager
    def explaining(self, reference: Reference) -> Iterator[None]:
        """Failures of `api` become errors that say what to do."""
        try:
            yield
        except ModelError:
            raise
        except Exception as error:
            explained = explain(error, reference, self.endpoint, has_token=self._token is not None)
            if explained is None:
                raise
            raise explained from error


def patiently(call: Callable[[], T], statuses: tuple[int, ...] = PASSING) -> T:
    """Call again after a pause while the hub is overloaded or the network fails."""
    from huggingface_hub.errors import HfHubHTTPError

    for pause in PAUSES_S:
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in statuses:
                raise
        except _network_errors():
            if statuses is not PASSING:
                raise
        time.sleep(pause)
    return call()


def _network_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    # its base is the HTTP library's: httpx up to huggingface_hub 1, httpx2 since
    return (HfHubHTTPError.__bases__[0],)


def explain(
    error: Exception, reference: Reference, endpoint: str, *, has_token: bool, noun: str = "model"
) -> ModelError | None:
    """What a failure of huggingface_hub means to the user; None for one that is ours."""
    from huggingface_hub import errors

    page = f"{endpoint}/{'' if noun == 'model' else 'datasets/'}{reference.repo}"
    tokens = f"{endpoint}/settings/tokens"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    said = error.response.headers.get("X-Error-Message", "") if status else ""  # type: ignore[attr-defined]
    kind = ModelError
    if isinstance(error, errors.GatedRepoError):
        what = f"{reference.repo} is gated: its owner wants you to accept conditions first"
        if has_token:
            what = f"{reference.repo} is gated, and the account of HF_TOKEN has no access to it"
        hint = f"accept them on {page}, then set HF_TOKEN to a token of that account ({tokens})"
        if has_token:
            hint = f"ask for access on {page} with the account that the token belongs to"
    elif isinstance(error, errors.RevisionNotFoundError):
        what = f"{reference.repo} has no revision {reference.revision}"
        hint = f"see the branches and tags on {page}/tree/main"
    elif status == 401 and "Invalid" in said:
        what = "the hub does not accept the token in HF_TOKEN"
        hint = f"make a new one on {tokens}, or unset HF_TOKEN for a public {noun}"
    elif isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        what = f"there is no folder {reference}, and the hub has no such public {noun}"
        hint = f"check the name on {page}; for a private {noun} set HF_TOKEN ({tokens})"
        if has_token:
            what = f"there is no folder {reference}, and no such {noun} that HF_TOKEN may see"
            hint = f"check the name on {page}; if it is private, its owner has to give you access"
    elif isinstance(error, errors.DisabledRepoError):
        what, hint = f"the hub has disabled {reference.repo}", f"see {page}"
    elif status == 403:
        what = f"{reference.repo} is private, and the token in HF_TOKEN may not read it"
        hint = f"give the token the right to read this repository: {tokens}"
    elif isinstance(error, errors.EntryNotFoundError):
        what, hint = f"a file of {reference} is not there any more", f"see {page}"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        what = f"{reference} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it"
        hint = "unset HF_HUB_OFFLINE, or run once with a network and the same TRAIN_CACHE"
    elif status == 429:
        kind, what = Unreachable, "the hub asks for fewer requests (429)"
        hint = "wait some minutes" + ("" if has_token else "; with HF_TOKEN set it allows more")
    elif status is not None:
        kind, what = Unreachable, f"the hub answers with an error ({status})"
        hint = "try again later; what has been fetched is kept"
    elif isinstance(error, _network_errors()):
        kind, what = Unreachable, f"the hub cannot be reached: {str(error) or type(error).__name__}"
        hint = "check network, proxy and HF_ENDPOINT and run again; what has been fetched is kept"
    elif isinstance(error, errors.SafetensorsParsingError):
        what, hint = f"a weight file of {reference} is corrupt on the hub: {error}", f"see {page}"
    elif isinstance(error, OSError) and "Consistency check" in str(error):
        what = f"the hub sent a file of {reference} in another size than it announced"
        hint = "run again; if that does not help, a proxy or mirror alters files"
    elif isinstance(error, ValueError | KeyError | TypeError):
        what = f"{endpoint} does not answer as the hub does: {error}"
        hint = "check HF_ENDPOINT and proxies"
    else:
        return None
    return kind(what, where=page, hint=hint)
