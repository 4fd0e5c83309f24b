"""Push a folder to the model hub, when that is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint import hub
from entrypoint.errors import ModelError, SettingsError
from entrypoint.hub import Hub

WHERE = "--push or TRAIN_PUSH"


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where to push to."""

    repo: str
    """ORG/NAME."""
    private: bool
    """Whether the repository, when it is new, is to be seen by its owner alone."""


def check_destination(
    name: str | None, environ: Mapping[str, str], *, private: bool
) -> Destination | None:
    """Refuse before any work a push that cannot succeed.

    Raises:
        SettingsError: no such name, no token, or offline.
    """
    if name is None:
        return None
    reference = hub.parse(name)
    if reference is None or reference.revision != "main":
        raise SettingsError(f"{name} is no ORG/NAME", where=WHERE)
    if hub.is_offline(environ):
        raise SettingsError("HF_HUB_OFFLINE forbids to push", where=WHERE, hint="unset it")
    if not environ.get("HF_TOKEN", "").strip():
        raise SettingsError(
            "pushing needs a token with the right to write",
            where=WHERE,
            hint="set HF_TOKEN, or put it into the secrets folder",
        )
    return Destination(repo=reference.repo, private=private)


def upload(destination: Destination, folder: Path, environ: Mapping[str, str]) -> str:
    """Push all files of the folder in one commit and return its address.

    Raises:
        ModelError: the hub refuses or does not answer.
    """
    hub_of = Hub(environ)
    repo = destination.repo
    try:
        with hub_of.explaining(hub.Reference(repo=repo)):
            hub_of.api.create_repo(repo, private=destination.private, exist_ok=True)
            return str(hub_of.api.upload_folder(repo_id=repo, folder_path=folder).commit_url)
    except ModelError as error:
        raise ModelError(
            f"the export is in {folder}, but was not pushed: {error.what}",
            where=error.where,
            hint=f"{_hint(error)}push it with `hf upload {repo} {folder}`",
        ) from error


def _hint(error: ModelError) -> str:
    # of a network that fails, the hub's own says that a download is kept
    return (
        "" if error.hint is None or isinstance(error, hub.Unreachable) else f"{error.hint}; then "
    )
