"""`train quantize` from end to end: a checkpoint in, a quantized folder out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.filesize import decimal

from entrypoint import launch, topology
from entrypoint.data import dataset as datasets
from entrypoint.data.shapes import Task
from entrypoint.errors import DataError, SettingsError
from entrypoint.files import read_json
from entrypoint.methods import TRAITS
from entrypoint.models.checkpoint import locate, merged
from entrypoint.models.companions import FAST
from entrypoint.objectives import TASKS
from entrypoint.plan import Plan
from entrypoint.quantization.folder import OUTPUT_OPTION, check, quantize, size_bytes
from entrypoint.quantization.samples import Calibration
from entrypoint.recorded import rows_of
from entrypoint.results import Told, nowhere
from entrypoint.run_folder import RunFolder, default_output
from entrypoint.schemes import (
    BY_ROWS,
    CALIBRATION_ROWS,
    GROUPED,
    Scheme,
    can_round_by_rows,
    check_device,
    is_trained_for,
)
from entrypoint.settings import Device, Dtype
from entrypoint.topology import World

NAMES = {"gptq": "GPTQ", "smoothquant": "SmoothQuant"}
"""As their papers call them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What `train quantize` is asked for beside the scheme."""

    calibrate: str | None = None
    """Rows to round by, named as --data names them; None takes those of the run."""
    rows: int | None = None
    """How many of them; 0 rounds to nearest."""
    output: Path | None = None
    device: Device = "auto"
    dtype: Dtype = "auto"


def quantize_one(
    reference: str,
    scheme: Scheme,
    asked: Asked,
    environ: Mapping[str, str],
    *,
    told: Told = nowhere,
) -> None:
    """Write a quantized copy of one checkpoint.

    Raises:
        SettingsError, ModelError, DataError: see `entrypoint.quantization.folder.quantize`.
    """
    console = Console(highlight=False, soft_wrap=True)
    world = topology.detect(asked.device, asked.dtype)
    if world.device != "cuda":
        # what a CPU cannot run is known before a model is fetched
        check_device(scheme, world)
    check_asked(asked, scheme, world)
    checkpoint = locate(reference, environ)
    folder, run = merged(checkpoint), checkpoint.run
    of_run = run if run and folder == run.final else None
    output, method = asked.output, scheme.method
    if output is None:
        output = run.quantized(method) if run else default_output("quantize", checkpoint.label)
    check(folder, scheme, world, output)
    # a folder for transformers and a file for torchtune
    launch.check_room(output, 2 * size_bytes(folder), OUTPUT_OPTION)
    if of_run:
        for line in remarks(of_run, scheme):
            console.print(line, markup=False)
    samples = samples_for(of_run, folder, scheme, asked, world, environ)
    console.print(said(samples, scheme), markup=False)
    quantize(folder, scheme, world, output, samples)
    before, after = size_bytes(folder), size_bytes(output)
    console.print(f"weights: {decimal(before)} -> {decimal(after)} ({after / before:.0%})")
    console.print(f"quantized model: {output}", markup=False)
    told(
        {
            "folder": str(output),
            "method": method,
            "group_size": scheme.group_size if method in GROUPED else None,
            "skip": list(scheme.skip),
            "weights_bytes": {"before": before, "after": after},
        }
    )


def check_asked(asked: Asked, scheme: Scheme, world: World) -> None:
    """Refuse rows that nothing is done with.

    Raises:
        SettingsError: the method has no use for them, or none shall be taken.
    """
    where = "--calibrate or TRAIN_CALIBRATE"
    if asked.calibrate and not can_round_by_rows(scheme, world):
        raise SettingsError(
            f"{scheme.method} on {world.device} rounds to nearest and needs no rows",
            where=where,
            hint="leave it out",
        )
    if asked.calibrate and asked.rows == 0:
        raise SettingsError(
            "there are rows to round by, and none shall be taken",
            where=where,
            hint="leave it out, or --calibration-rows 0",
        )


def samples_for(
    run: RunFolder | None,
    folder: Path,
    scheme: Scheme,
    asked: Asked,
    world: World,
    environ: Mapping[str, str],
) -> Calibration | None:
    """The rows to round by: those that are named, else the run's own; None for none.

    Raises:
        DataError: they cannot be read, or the run's are no longer what it was trained on.
    """
    if asked.rows == 0 or not can_round_by_rows(scheme, world):
        return None
    count = asked.rows or CALIBRATION_ROWS
    if asked.calibrate:
        dataset = datasets.load(asked.calibrate, environ, tasks=get_args(Task), dry=False)
        return Calibration(reference=asked.calibrate, file=dataset.train, count=count)
    if run is None or not (folder / FAST).is_file():
        return None
    manifest = read_json(run.manifest) or {}
    settings = manifest["settings"]
    if is_trained_for(scheme, settings["method"]):
        return None
    hint = "name rows with --calibrate, or round without them: --calibration-rows 0"
    try:
        reference = rows_of(run, manifest)
        dataset = datasets.load(reference, environ, tasks=TASKS[settings["objective"]], dry=False)
    except (DataError, SettingsError) as error:
        raise DataError(
            f"the run's rows cannot be read: {error.what}", where=error.where, hint=hint
        ) from error
    if dataset.train.sha256 != manifest["data"]["train"]["sha256"]:
        raise DataError(
            "these are not the rows that the run was trained on", where=reference, hint=hint
        )
    return Calibration(reference=reference, file=dataset.train, count=count)


def samples_of_run(plan: Plan, scheme: Scheme) -> Calibration | None:
    """The rows that a run's own copy is rounded by; None for none."""
    settings = plan.settings
    if (
        not can_round_by_rows(scheme, plan.world)
        or is_trained_for(scheme, settings.method)
        or plan.model.native_tokenizer
    ):
        return None
    return Calibration(reference=settings.data, file=plan.dataset.train)


def said(samples: Calibration | None, scheme: Scheme) -> str:
    """How weights are rounded, in words."""
    if samples:
        rows = min(samples.count, samples.file.rows)
        way = NAMES[BY_ROWS[scheme.method]]
        return f"rounding by what {rows} rows of {samples.reference} make of each layer ({way})"
    better = "; --calibrate DATA loses less" if scheme.method in BY_ROWS else ""
    return f"rounding each weight to nearest{better}"


def remarks(run: RunFolder, scheme: Scheme) -> list[str]:
    """What a run that was trained for quantization says of this scheme."""
    settings = (read_json(run.manifest) or {}).get("settings", {})
    traits = TRAITS.get(settings.get("method"))
    if traits is None or not traits.fake_quantized:
        return []
    trained = f"the run was trained ({settings['method']}) to be rounded"
    if scheme == Scheme():
        return [f"{trained} so: {scheme.method} in groups of {scheme.group_size}"]
    expected = f"{Scheme().method} in groups of {Scheme().group_size}, but for the output head"
    return [f"warning: {trained} by {expected}; this copy rounds otherwise"]
