"""What a run was made from, found again from wherever one is: paths, commits, rows on their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from entrypoint.data.folder import DESCRIPTION
from entrypoint.data.source import STANDARD_INPUT
from entrypoint.errors import SettingsError
from entrypoint.run_folder import RunFolder
from entrypoint.settings import EMBEDDED


def absolute(manifest: Mapping[str, Any], value: str) -> str:
    """A path of the manifest, seen from the folder that its run was started in; what is no path
    stays."""
    if value in (EMBEDDED, STANDARD_INPUT) or Path(value).expanduser().is_absolute():
        return value
    place = Path(manifest.get("directory") or Path.cwd())
    there = place / value
    try:
        found = there.exists() or any(place.glob(value))
    except (ValueError, NotImplementedError):
        found = False
    return str(there) if found else value


def rows_of(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """What --data has to be for a run's rows: a data set of the hub at its commit, and the prepared
    rows where they came from standard input.

    Raises:
        SettingsError: rows that came from standard input are gone.
    """
    reference = absolute(manifest, manifest["settings"]["data"])
    if reference != STANDARD_INPUT:
        revision = manifest["data"].get("revision")
        remote = revision and not Path(reference).expanduser().exists()
        return f"{reference.partition('@')[0]}@{revision}" if remote else reference
    recipe = OmegaConf.load(run.recipe)
    prepared = Path(str(OmegaConf.select(recipe, "dataset.data_files"))).parent
    if not (prepared / DESCRIPTION).is_file():
        raise SettingsError(
            "the rows came from standard input, and what was prepared of them is gone",
            where=prepared,
            hint="give them to `train sft` again; the report of the run has its options",
        )
    return str(prepared)
