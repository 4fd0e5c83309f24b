"""`train runs` and `train replay` from end to end."""

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import yaml
from rich.console import Console

from entrypoint import hub, pipeline
from entrypoint.errors import SettingsError
from entrypoint.meeting import meeting
from entrypoint.recorded import absolute, rows_of
from entrypoint.results import Told, nowhere
from entrypoint.runs.differences import INPUTS, Difference, differing, parts_of
from entrypoint.runs.pair import pair
from entrypoint.runs.record import Run, below, read, summary
from entrypoint.runs.table import show_differences, show_list, show_pair
from entrypoint.settings import Objective, Settings

PATHS = ("output", "recipe", "tasks_folder")
REFERENCES = ("model", "teacher")
RESTATED = (*REFERENCES, "data", "recipe", "tasks_folder", "dtype")
"""Settings that a replay gives in other words: whole paths, revisions, the number format."""
NAMES = ("recorded", "now")


def list_runs(outputs: Path, told: Told = nowhere) -> None:
    """All runs below a folder."""
    rows = [summary(run) for run in below(outputs)]
    told(rows)
    if not rows:
        print(f"there are no runs below {outputs}")
        return
    show_list(rows, Console(highlight=False))


def compare_runs(first: Path, second: Path, told: Told = nowhere) -> None:
    """Two runs side by side."""
    found = pair(read(first), read(second))
    told(found.as_dict())
    show_pair(found, Console(highlight=False))


def replay(
    root: Path,
    environ: Mapping[str, str],
    *,
    output: Path | None,
    dry_run: bool,
    strict: bool,
    told: Told = nowhere,
) -> None:
    """Run a run again from its manifest, and say what differs before and after.

    Args:
        strict: end before the start when model, data or recipe are not the recorded ones.

    Raises:
        SettingsError: there is no run, it cannot be run again, or --strict found differences.
    """
    recorded = read(root.expanduser())
    settings = settings_of(recorded, output=output, dry_run=dry_run)
    before: list[Difference] = []

    def look(manifest: Mapping[str, Any], recipe: str) -> None:
        """Called when everything is decided and nothing has started."""
        now = json.loads(json.dumps(manifest))  # tuples are lists in a file
        before[:] = differing(
            parts_of(recorded.manifest, yaml.safe_load(recorded.folder.recipe.read_text("utf-8"))),
            parts_of(now, yaml.safe_load(recipe)),
            RESTATED,
        )
        pipeline.step(console := Console(highlight=False), f"replaying {recorded.folder.root}")
        show_differences(before, NAMES, console)
        sys.stdout.flush()
        apart = sorted({one.part for one in before} & set(INPUTS))
        if strict and apart:
            raise SettingsError(
                f"this would not be the same run: {', '.join(apart)} differ",
                where="--strict or TRAIN_STRICT",
                hint="give back what was recorded, or leave --strict out",
            )

    def compare(result: Mapping[str, Any]) -> None:
        if dry_run:
            told({"run": str(root), "before": [asdict(one) for one in before], **result})
            return
        again = read(Path(result["folder"]))
        found = pair(recorded, again, RESTATED)
        console = Console(highlight=False)
        pipeline.step(console, f"the recorded run and {again.folder.root.name}")
        show_pair(found, console)
        told(
            {
                "run": str(root),
                "folder": result["folder"],
                "before": [asdict(one) for one in before],
                "after": found.as_dict(),
            }
        )

    met = nullcontext() if dry_run else meeting(Path(settings.model), environ)
    pipeline.fine_tune(settings, environ, met=met, before=look, told=compare)


def settings_of(run: Run, *, output: Path | None, dry_run: bool) -> Settings:
    """The settings that make the run again, wherever it is run from.

    Model and data of the hub are those of the recorded commit, and the number format is the one
    that was computed in.

    Raises:
        SettingsError: a setting that this version does not know, or rows that came from standard
            input and are gone.
    """
    recorded = dict(run.settings)
    if recorded.get("objective") not in get_args(Objective):
        raise _unknown(run, f"objective {recorded.get('objective')}")
    fields = Settings.__dataclass_fields__
    if unknown := sorted(recorded.keys() - fields.keys()):
        raise _unknown(run, f"the settings {', '.join(unknown)}")
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()
    }
    for name in PATHS:
        if given.get(name) is not None:
            given[name] = Path(absolute(run.manifest, given[name]))
    for name in REFERENCES:
        if name in given:
            given[name] = absolute(run.manifest, given[name])
    for part in ("model", "teacher"):
        facts = run.manifest.get(part)
        if facts and part in given and _of_hub(given[part]):
            given[part] = facts.get("pinned", given[part])
    given["data"] = rows_of(run.folder, run.manifest)
    given["dtype"] = run.manifest["world"]["dtype"]
    # what a preset has set is among them
    given["explicit"] = tuple(recorded)
    return Settings(**{**given, "output": output, "resume": None, "dry_run": dry_run})


def _unknown(run: Run, what: str) -> SettingsError:
    version = run.manifest["versions"].get("tunecask")
    return SettingsError(
        f"this version does not know {what}",
        where=run.folder.manifest,
        hint=f"replay it with the version that wrote it: {version}",
    )


def _of_hub(reference: str) -> bool:
    return not Path(reference).expanduser().exists() and hub.parse(reference) is not None
