"""Models of the workspace: registered from a run folder once, with what they are made of."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from entrypoint.errors import ModelError, SettingsError
from entrypoint.files import whole
from scripts.aml import blobs

FINAL = "final"
CHECKPOINTS = "checkpoints/"
RUN, PART = "tunecask.run", "tunecask.part"
"""Properties that a registered model is found by."""
LABELS = {FINAL: "tuned"}
"""What the scores of a part are filed under, where it is not its own name."""


def register(
    ml: Any, job: str, name: str, part: str, *, update: bool = False, kind: str = "custom_model"
) -> tuple[str, bool]:
    """Register the run folder's `final`, or a part such as `quantized/8da4w`, unless it is.

    Args:
        update: make a new version even so.
        kind: the type of the model.

    Returns:
        NAME:VERSION, and whether it is new.

    Raises:
        SettingsError: the job has no run folder.
        ModelError: the folder has no such part.
    """
    from azure.ai.ml.entities import Model

    sent = ml.jobs.get(job)
    output = output_of(sent, job)
    run = sent.tags.get(RUN, job)
    known = {RUN: run, PART: part}
    if not update:
        for version in versions(ml, name):
            if known.items() <= (version.properties or {}).items():
                return f"{name}:{version.version}", False
    folder = blobs.place(ml, output.path)
    if folder.read(f"{part}/config.json") is None:
        raise ModelError(
            f"the run has no model {part}",
            where=output.path,
            hint="take `final` or `quantized/8da4w`, of a job that has ended well",
        )
    manifest = folder.read_json("manifest.json") or {}
    result = folder.read_json("result.json") or {}
    made = ml.models.create_or_update(
        Model(
            name=name,
            path=f"azureml://jobs/{job}/outputs/run/paths/{part}",
            type=kind,
            description=f"Made by Tunecask, run {run}",
            tags=tags(manifest, result, LABELS.get(part, Path(part).name)),
            properties={**known, **properties(manifest)},
        )
    )
    return f"{name}:{made.version}", True


def tags(manifest: Mapping[str, Any], result: Mapping[str, Any], label: str) -> dict[str, str]:
    """What a model is looked for by: how it was made, and its scores."""
    settings = manifest.get("settings", {})
    made = {
        name: settings.get(name) for name in ("objective", "method", "model", "data", "teacher")
    }
    scores = {
        score: f"{value:.4f}"
        for score, value in result.get("evaluation", {}).get(label, {}).items()
    }
    return {name: str(value) for name, value in made.items() if value} | scores


def properties(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What it was made from, word by word."""
    found = {
        "data.sha256": manifest.get("data", {}).get("train", {}).get("sha256"),
        "recipe.sha256": manifest.get("recipe", {}).get("sha256"),
        "git_revision": manifest.get("git_revision"),
        "image": manifest.get("image"),
        **{f"version.{name}": text for name, text in manifest.get("versions", {}).items()},
    }
    return {f"tunecask.{name}": str(value) for name, value in found.items() if value}


def versions(ml: Any, name: str) -> list[Any]:
    """All versions of a model; Azure says of none that it is not found, or lists nothing."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return list(ml.models.list(name))
    except ResourceNotFoundError:
        return []


def newest(ml: Any, name: str) -> Any:
    """The newest version.

    Raises:
        ModelError: there is none.
    """
    found = versions(ml, name)
    if not found:
        raise ModelError(f"there is no model {name}", where="--name", hint="`make aml-register`")
    return max(found, key=lambda model: model.creation_context.created_at)


def download_run(ml: Any, job: str, folder: Path, *, with_checkpoints: bool = False) -> int:
    """Download the run folder of a job, of one that has not ended too. Returns the number of files.

    Raises:
        SettingsError: the job has no run folder, or the folder is there already.
        ModelError: nothing is in it yet.
    """
    refuse_existing(folder)
    place = blobs.place(ml, output_of(ml.jobs.get(job), job).path)
    names = [name for name in place.names() if with_checkpoints or not name.startswith(CHECKPOINTS)]
    if not names:
        raise ModelError("the run folder is empty", where=job, hint="`make aml-logs`")
    with whole(folder) as scratch:
        for name in names:
            place.fetch(name, scratch / name)
    return len(names)


def output_of(sent: Any, job: str) -> Any:
    """The run folder of a job.

    Raises:
        SettingsError: it has none.
    """
    output = (sent.outputs or {}).get("run")
    if output is None:
        raise SettingsError("the job has no output `run`", where=job)
    return output


def refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise SettingsError(
            f"{folder} exists already", where="--output", hint="give another folder"
        )


def download(ml: Any, name: str, version: str, folder: Path) -> Path:
    """Download a model. Returns the folder that transformers loads.

    Raises:
        SettingsError: the folder is there already.
        ModelError: what was registered is no model that transformers loads.
    """
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        ml.models.download(name, version, download_path=scratch)
        found = next((path.parent for path in sorted(Path(scratch).rglob("config.json"))), None)
        if found is None:
            raise ModelError(f"{name}:{version} has no config.json", where=name)
        found.rename(folder)
    return folder
