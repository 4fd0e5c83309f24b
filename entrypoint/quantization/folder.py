"""From a Hugging Face folder to its quantized copy. Imports torch only when called."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from entrypoint import allocator, hardware
from entrypoint.errors import ModelError, SettingsError
from entrypoint.files import whole, write_json
from entrypoint.models.card import describe, is_quantized, read_config
from entrypoint.models.weights import check_whole, find_shards
from entrypoint.noise import hide_loading_bars
from entrypoint.progress import say
from entrypoint.quantization.model import load, weights
from entrypoint.quantization.samples import Calibration, token_ids
from entrypoint.schemes import BY_ROWS, GROUPED, Scheme, check_config, check_device, skipped
from entrypoint.topology import World

OUTPUT_OPTION = "--output or TRAIN_QUANTIZE_OUTPUT"
RECORD = "quantization.json"
"""What was done, beside the weights."""
RECORD_VERSION = 1
SHARD = "500MB"
"""Size of weight files: safetensors copies a whole file's tensors before it writes them."""


def check(checkpoint: Path, scheme: Scheme, world: World, output: Path) -> None:
    """Refuse before any work what `quantize` could not do.

    Raises:
        ModelError: no model there, one that is quantized already, or layers that the method's
            groups or blocks do not divide.
        SettingsError: `output` exists, or the device cannot run the method.
    """
    check_device(scheme, world, capability(world))
    if is_quantized(checkpoint):
        raise ModelError(
            "the model is quantized already",
            where=checkpoint,
            hint="quantize the model that it was made from",
        )
    layers_left_alone(checkpoint, scheme)
    if output.exists():
        raise SettingsError(
            f"{output} exists already", where=OUTPUT_OPTION, hint="give another folder"
        )


def capability(world: World) -> tuple[int, int] | None:
    """CUDA's number for what the first GPU can do; None without one."""
    driver = hardware.read_driver() if world.device == "cuda" else None
    return driver.gpus[0].capability if driver and driver.gpus else None


def check_sizes(checkpoint: Path, scheme: Scheme) -> None:
    """Refuse layers that groups or blocks do not divide, from config.json alone.

    Raises:
        ModelError: names the size.
    """
    path = checkpoint / "config.json"
    check_config(read_config(path), scheme, path)


def layers_left_alone(checkpoint: Path, scheme: Scheme) -> tuple[str, ...]:
    """Names of the layers that are not quantized; see `entrypoint.schemes.skipped`."""
    stored = check_whole(checkpoint, find_shards(checkpoint))
    shapes = {name: one.shape for name, one in stored.items()}
    return skipped(scheme, shapes, checkpoint)


def quantize(
    checkpoint: Path,
    scheme: Scheme,
    world: World,
    output: Path,
    calibration: Calibration | None = None,
) -> None:
    """Write `checkpoint`, quantized, as a Hugging Face folder to `output`; whole or not at all.

    Args:
        calibration: rows to round by; None rounds each weight to nearest.

    Raises:
        ModelError, SettingsError: see `check`.
        DataError: rows that the model's tokenizer cannot write.
    """
    check(checkpoint, scheme, world, output)
    from transformers import AutoTokenizer

    hide_loading_bars()
    allocator.give_back_large_blocks()
    with whole(output) as scratch:
        alone = layers_left_alone(checkpoint, scheme)
        rows = token_ids(checkpoint, calibration) if calibration else []
        model = load(checkpoint, scheme, world, alone, rows)
        model.save_pretrained(scratch, max_shard_size=SHARD)
        torchtune = write_torchtune(weights(model, scheme), checkpoint, scheme, scratch)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(scratch)
        write_json(scratch / RECORD, record(scheme, calibration, rows, alone, torchtune))


def write_torchtune(
    weights: Iterable[tuple[str, Any]],
    checkpoint: Path,
    scheme: Scheme,
    folder: Path,
) -> str | None:
    """Write the file that torchtune's `quantize` recipe would, and return its name; None for a
    model that torchtune cannot build. See `entrypoint.tune.quantized.write`."""
    shards = find_shards(checkpoint)
    try:
        card = describe(
            str(checkpoint), checkpoint, read_config(checkpoint / "config.json"), shards
        )
    except ModelError as error:
        say(f"no file for torchtune: {error.what}")
        return None
    # imports torchtune
    from entrypoint.tune import quantized

    name = f"{shards[0].split('.')[0]}-{scheme.method}.pt"
    quantized.write(weights, card, folder / name)
    return name


def record(
    scheme: Scheme,
    calibration: Calibration | None,
    rows: Sequence[Sequence[int]],
    alone: Collection[str],
    torchtune: str | None,
) -> dict[str, Any]:
    """What was done, for quantization.json of the copy.

    Args:
        torchtune: name of the file for torchtune.
    """
    return {
        "version": RECORD_VERSION,
        "method": scheme.method,
        "group_size": scheme.group_size if scheme.method in GROUPED else None,
        "left_alone": sorted(alone),
        "rounding": BY_ROWS[scheme.method] if calibration else "nearest",
        "torchtune": torchtune,
        "calibration": calibration
        and {
            "data": calibration.reference,
            "sha256": calibration.file.sha256,
            "rows": len(rows),
            "tokens": sum(map(len, rows)),
        },
    }


def size_bytes(folder: Path) -> int:
    """Size of the weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
