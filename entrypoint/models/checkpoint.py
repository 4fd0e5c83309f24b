"""From what --model of `eval` and `quantize` names to a folder that transformers loads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint import hub
from entrypoint.errors import ModelError, SettingsError
from entrypoint.models.card import read_config
from entrypoint.models.download import Download
from entrypoint.models.embedded.materialise import embedded_folder, materialise
from entrypoint.models.finite import check_finite
from entrypoint.models.weights import check_whole, find_shards, named_shards
from entrypoint.run_folder import RunFolder
from entrypoint.settings import EMBEDDED

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model to evaluate or quantize."""

    folder: Path
    """What transformers loads; for an adapter, its base model."""
    label: str
    run: RunFolder | None
    """The run that it belongs to."""
    adapter: Path | None = None
    """A PEFT folder to put on top of it."""


def locate(reference: str, environ: Mapping[str, str], base: str | None = None) -> Checkpoint:
    """Find or fetch the checkpoint and make sure that its weight files are whole.

    Args:
        base: the model that an adapter belongs on; None takes the one that the adapter names.

    Raises:
        ModelError: nothing is there, it cannot be fetched, or a weight file is corrupt.
        SettingsError: a base for what is no adapter.
    """
    adapter = Path(reference).expanduser().resolve()
    if (adapter / ADAPTER_CONFIG).is_file() and not (adapter / "config.json").is_file():
        return _with_base(adapter, base, environ)
    if base is not None:
        raise SettingsError(
            f"{reference} is no adapter and needs no other model", where="--base or TRAIN_BASE"
        )
    return _whole(reference, environ)


def merged(checkpoint: Checkpoint) -> Path:
    """The folder of a checkpoint that is complete by itself.

    Raises:
        ModelError: it is an adapter.
    """
    if checkpoint.adapter:
        raise ModelError(
            "an adapter is no model by itself",
            where=checkpoint.adapter,
            hint="give the run's folder, whose final/ has the adapter merged into the weights",
        )
    return checkpoint.folder


def _with_base(adapter: Path, base: str | None, environ: Mapping[str, str]) -> Checkpoint:
    named = base or read_config(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    hint = "name the model that the adapter was trained on with --base"
    if not named:
        raise ModelError("the adapter names no base model", where=adapter, hint=hint)
    try:
        found = _whole(named, environ)
    except ModelError as error:
        if base:
            raise
        raise ModelError(
            f"the adapter's base model cannot be used: {error.what}",
            where=adapter / ADAPTER_CONFIG,
            hint=hint,
        ) from error
    weights = [*adapter.glob("adapter_model.safetensors")]
    if not weights:
        raise ModelError("the adapter has no adapter_model.safetensors", where=adapter)
    check_whole(adapter, tuple(path.name for path in weights))
    run = RunFolder(root=adapter.parent)
    return Checkpoint(
        folder=found.folder,
        label=adapter.name,
        run=run if run.manifest.is_file() and adapter == run.adapter else None,
        adapter=adapter,
    )


def _whole(reference: str, environ: Mapping[str, str]) -> Checkpoint:
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
