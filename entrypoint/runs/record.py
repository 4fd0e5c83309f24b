"""What a run folder says, read without what takes seconds to import."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint import status
from entrypoint.comparison.table import headline
from entrypoint.errors import SettingsError
from entrypoint.files import read_json, sha256_of
from entrypoint.progress import say
from entrypoint.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run as it is now."""

    folder: RunFolder
    manifest: Mapping[str, Any]
    result: Mapping[str, Any]
    """Empty while there is none."""
    state: Mapping[str, Any]
    """See `entrypoint.status.read`."""
    metrics: Sequence[Mapping[str, Any]]
    """One for each optimizer step."""

    @property
    def settings(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.manifest["settings"]
        return found

    @property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """By label and score: those that the run has made itself."""
        found: Mapping[str, Mapping[str, float]] = self.result.get("evaluation", {})
        return found


def read(root: Path) -> Run:
    """The run in a folder.

    Raises:
        SettingsError: there is none, or its manifest cannot be read.
    """
    folder = RunFolder(root=root)
    if not (folder.manifest.is_file() and folder.recipe.is_file()):
        raise SettingsError(
            f"there is no run in {root}",
            where="RUN",
            hint="give a folder that `train sft`, `dpo` or `kd` has written; `train runs` lists "
            "those below outputs/",
        )
    try:
        manifest = read_json(folder.manifest) or {}
        known = {"settings", "started", "model", "data", "versions", "world"}
        if missing := known - manifest.keys():
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return Run(
            folder=folder,
            manifest=manifest,
            result=read_json(folder.result) or {},
            state=status.read(folder),
            metrics=metrics_of(folder),
        )
    except ValueError as error:
        raise SettingsError(
            f"the run's files cannot be read: {error}",
            where=root,
            hint="a file was changed, or is one of another version of Tunecask",
        ) from error


def metrics_of(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    path = run.metrics
    if not path.is_file():
        return []
    # a killed process may have left half a line
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line[-1:] == "}"]


def below(outputs: Path) -> list[Run]:
    """All runs below a folder, the oldest first; one that cannot be read is told and left out.

    Raises:
        SettingsError: there is no such folder.
    """
    if not outputs.is_dir():
        raise SettingsError(
            f"there is no folder {outputs}",
            where="--outputs or TRAIN_OUTPUTS",
            hint="give the folder that holds the run folders",
        )
    found = []
    for root in _roots(outputs):
        try:
            found.append(read(root))
        except SettingsError as error:
            say(f"warning: {root} is left out: {error.what}")
    return sorted(found, key=lambda run: str(run.manifest["started"]))


def _roots(outputs: Path) -> Iterator[Path]:
    """Folders that hold a run; what lies within one is its own."""
    for place, folders, files in os.walk(outputs):
        if {"manifest.json", "recipe.yaml"} <= set(files):
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def summary(run: Run) -> dict[str, Any]:
    """A run in one row, for people and programs."""
    last = run.metrics[-1] if run.metrics else {}
    label, score, value = _best_known(run)
    return {
        "name": run.folder.root.name,
        "folder": str(run.folder.root),
        "started": run.manifest["started"],
        "objective": run.settings["objective"],
        "model": run.settings["model"],
        "method": run.settings["method"],
        "steps": run.result.get("steps", last.get("step", 0)),
        "loss": run.result.get("loss", {}).get("last", last.get("loss")),
        "evaluation": score and {"label": label, "score": score, "value": value},
        "status": run.state["status"],
        "exit_code": run.state.get("exit_code"),
        "error": run.state.get("error"),
    }


def _best_known(run: Run) -> tuple[str | None, str | None, float | None]:
    """Label, name and value of the score that says most: the tuned model's, if it has one."""
    labels = sorted(run.scores, key=lambda label: (label != "tuned", label == "base"))
    for label in labels:
        if score := headline(run.scores[label]):
            return label, score, run.scores[label][score]
    return None, None, None


def weights_hash(folder: Path) -> str | None:
    """Of all safetensors of a model or adapter, by name; None when there are none."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        return None
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(f"{shard.name} {sha256_of(shard)}\n".encode())
    return digest.hexdigest()
