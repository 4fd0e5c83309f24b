"""From what --model of `eval` and `quantize` names to a folder that transformers loads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint import hub
from entrypoint.errors import ModelError
from entrypoint.models.download import Download
from entrypoint.models.embedded.materialise import embedded_folder, materialise
from entrypoint.models.finite import check_finite
from entrypoint.models.weights import check_whole, find_shards, named_shards
from entrypoint.run_folder import RunFolder
from entrypoint.settings import EMBEDDED


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model to evaluate or quantize."""

    folder: Path
    label: str
    run: RunFolder | None
    """The run that it belongs to."""


def locate(reference: str, environ: Mapping[str, str]) -> Checkpoint:
    """Find or fetch the checkpoint and make sure that its weight files are whole.

    Raises:
        ModelError: nothing is there, it cannot be fetched, or a weight file is corrupt.
    """
    if reference == EMBEDDED:
        materialise(embedded_folder(environ))
        return Checkpoint(folder=embedded_folder(environ), label="base", run=None)
    given = Path(reference).expanduser().resolve()
    if not given.exists() and (wanted := hub.parse(reference)):
        folder = Download(wanted, environ).complete(named_shards)
        check_finite(folder, find_shards(folder))
        return Checkpoint(folder=folder, label=Path(wanted.repo).name, run=None)
    run = RunFolder(root=given) if RunFolder(root=given).manifest.is_file() else None
    folder = run.final if run else given
    if not folder.is_dir():
        raise ModelError(
            f"there is no model at {folder}" if not run else f"the run {given} has no final model",
            where="--model or TRAIN_MODEL",
            hint="give a run folder, a model folder in Hugging Face format, ORG/NAME on the model "
            "hub, or `embedded`",
        )
    shards = find_shards(folder)
    check_whole(folder, shards)
    check_finite(folder, shards)
    if folder.parent.name == "quantized" and RunFolder(root=folder.parents[1]).manifest.is_file():
        run = RunFolder(root=folder.parents[1])
    label = "tuned" if run and folder == run.final else folder.name
    return Checkpoint(folder=folder, label=label, run=run)
