"""Whether a run fits its machines: what the plan counts against what the size has."""

from collections.abc import Mapping

from entrypoint import memory, presets
from entrypoint.activations import Load, Switches
from entrypoint.machines import GB, Size
from entrypoint.models.card import Model
from entrypoint.models.published import known
from entrypoint.settings import Settings
from entrypoint.units import GIB
from scripts.aml.arguments import TrainCommand


def problems(
    command: TrainCommand, size: Size, nodes: int, environ: Mapping[str, str]
) -> list[str]:
    """Why the command cannot run on such machines; nothing where that is not known offline."""
    settings = command.settings
    device = next((each.value for each in command.arguments if each.name == "device"), None)
    if device == "cuda" and not size.gpus:
        return [f"--device cuda: {size.name} has no GPU"]
    if device == "mps":
        return ["--device mps: it exists on Apple silicon only"]
    if settings is None:
        return []
    found = []
    if settings.nproc_per_node and size.gpus and settings.nproc_per_node > size.gpus:
        found.append(
            f"--nproc-per-node {settings.nproc_per_node}: {size.name} has "
            f"{size.gpus} GPU{'s' if size.gpus > 1 else ''}"
        )
    model = known(settings.model, environ)
    teacher = known(settings.teacher, environ) if settings.objective == "kd" else None
    if model is None or (settings.objective == "kd" and teacher is None):
        return found
    there = capacity(size)
    if there is None:
        return found
    settings = presets.resolved(settings, parameters=model.parameters, rows=None)
    needed = state_bytes(settings, model, teacher, size)
    if needed > there * nodes:
        found.append(
            f"--model {settings.model}: weights, gradients and optimizer of method "
            f"{settings.method} take {needed / GB:.0f} GB, and {nodes} x {size.name} "
            f"has {there * nodes / GB:.0f} GB{' on its GPUs' if size.gpus else ''}; take "
            "--method lora or qlora, or larger machines"
        )
    return found


def capacity(size: Size) -> int | None:
    """Bytes that a machine trains in; None where that is not known offline."""
    if size.gpus:
        return size.gpus * size.gpu.memory if size.gpu else None
    return int(size.memory_gb * GIB) if size.memory_gb else None


def state_bytes(settings: Settings, model: Model, teacher: Model | None, size: Size) -> int:
    """Memory of weights, gradients and optimizer, as a plan counts it; rows are not known here."""
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bf16" if size.bf16 else "fp32"
    return memory.footprint(
        settings,
        model,
        teacher,
        device="cuda" if size.gpus else "cpu",
        dtype=dtype,
        processes=1,
        load=Load(tokens=1, cells=1, labels=1),
        switches=Switches(window=None, checkpointing=True),
    ).state
