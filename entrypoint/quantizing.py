"""`train quantize` from end to end: a checkpoint in, a quantized folder out."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from entrypoint import launch, topology
from entrypoint.methods import TRAITS
from entrypoint.models.checkpoint import locate, merged
from entrypoint.quantization import check, quantize, size_bytes
from entrypoint.results import Told, nowhere
from entrypoint.run_folder import RunFolder, default_output
from entrypoint.schemes import Scheme, check_device
from entrypoint.settings import Device, Dtype


def quantize_one(
    reference: str,
    scheme: Scheme,
    environ: Mapping[str, str],
    *,
    output: Path | None,
    device: Device,
    dtype: Dtype,
    told: Told = nowhere,
) -> None:
    """Write a quantized copy of one checkpoint.

    Raises:
        SettingsError, ModelError: see `entrypoint.quantization.check`.
    """
    console = Console(highlight=False, soft_wrap=True)
    world = topology.detect(device, dtype)
    if world.device != "cuda":
        # what a CPU cannot run is known before a model is fetched
        check_device(scheme, world)
    checkpoint = locate(reference, environ)
    folder = merged(checkpoint)
    method = scheme.method
    if output is None:
        run = checkpoint.run
        output = run.quantized(method) if run else default_output("quantize", checkpoint.label)
    check(folder, scheme, world, output)
    launch.check_room(output, size_bytes(folder))
    if checkpoint.run and folder == checkpoint.run.final:
        for line in remarks(checkpoint.run, scheme):
            console.print(line, markup=False)
    quantize(folder, scheme, world, output)
    before, after = size_bytes(folder), size_bytes(output)
    console.print(
        f"weights: {before / 1e6:,.0f} MB -> {after / 1e6:,.0f} MB ({after / before:.0%})"
    )
    console.print(f"quantized model: {output}", markup=False)
    told(
        {
            "folder": str(output),
            "method": method,
            "group_size": scheme.group_size,
            "skip": list(scheme.skip),
            "weights_bytes": {"before": before, "after": after},
        }
    )


def remarks(run: RunFolder, scheme: Scheme) -> list[str]:
    """What a run that was trained for quantization says of this scheme."""
    settings = json.loads(run.manifest.read_text("utf-8")).get("settings", {})
    traits = TRAITS.get(settings.get("method"))
    if traits is None or not traits.fake_quantized:
        return []
    trained = f"the run was trained ({settings['method']}) to be rounded"
    if scheme == Scheme():
        return [f"{trained} so: {scheme.method} in groups of {scheme.group_size}"]
    expected = f"{Scheme().method} in groups of {Scheme().group_size}, but for the output head"
    return [f"warning: {trained} by {expected}; this copy rounds otherwise"]
