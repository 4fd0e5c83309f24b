"""Weight files: which there are, and whether they are whole and are what the card expects."""

import json
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path

from entrypoint.errors import ModelError
from entrypoint.models.tensors import Shape, Stored

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
COMPUTED = ".rotary_emb.inv_freq"
"""End of the name of what early Llama files store and everybody computes; torchtune skips it."""

COPIES = {"lm_head.weight": "model.embed_tokens.weight"}
"""What some checkpoints hold beside the weight that it is tied to; Qwen3-0.6B does."""
OTHER_WEIGHTS = ("*.bin", "*.pth", "*.pt", "*.gguf", "*.h5", "*.msgpack")
CONVERT = (
    "load it with transformers, save_pretrained() it to a folder, and give the folder to --model"
)
FORMATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Number formats that can be trained from: safetensors' name -> torch's."""


def find_shards(folder: Path) -> tuple[str, ...]:
    """Names of the safetensors files that make up the model, by the index when there is one.

    Raises:
        ModelError: there are none, or the index names one that is not there.
    """
    names = named_shards(folder)
    if names == (SINGLE_FILE,) and not (folder / SINGLE_FILE).is_file():
        others = sorted(path.name for kind in OTHER_WEIGHTS for path in folder.glob(kind))
        if others:
            raise ModelError(
                f"the model folder has its weights as {others[0]}, not as safetensors",
                where=folder,
                hint=CONVERT,
            )
        raise ModelError(
            "the model folder has no safetensors weights",
            where=folder,
            hint=f"expected {SINGLE_FILE}, or shards with {INDEX_FILE}",
        )
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(f"the index names {name}, which is missing", where=folder)
    return names


def named_shards(folder: Path) -> tuple[str, ...]:
    """Names of the weight files, which may not be there yet: by the index, or the single file.

    Raises:
        ModelError: the index cannot be read.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            return tuple(sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values())))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the index of the weight files cannot be read: {error}", where=index
            ) from error
    return (SINGLE_FILE,)


def verify(folder: Path, shards: tuple[str, ...], expected: Mapping[str, Shape]) -> str:
    """Hold the shards' headers against the card; reads no weights.

    Returns:
        The number format of the weights.

    Raises:
        ModelError: a shard is cut short or corrupt, or a tensor is missing, unknown, misshapen or
            no floating-point number.
    """
    return compare(check_whole(folder, shards), expected, where=folder)


def compare(found: Mapping[str, Stored], expected: Mapping[str, Shape], *, where: object) -> str:
    """Hold the tensors that there are against those that there should be.

    Returns:
        The number format of most of the weights, by torch's name.

    Raises:
        ModelError: one is missing, unknown, misshapen or no floating-point number.
    """
    found = {
        name: stored
        for name, stored in found.items()
        if not name.endswith(COMPUTED) and not _is_copy(name, stored.shape, expected)
    }
    for problem, names in (
        ("is missing", expected.keys() - found.keys()),
        ("is unknown to this architecture", found.keys() - expected.keys()),
        (
            "has another shape than config.json says",
            {
                name
                for name in expected.keys() & found.keys()
                if expected[name] != found[name].shape
            },
        ),
        (
            "is in a format that cannot be trained from",
            {name for name, stored in found.items() if stored.dtype not in FORMATS},
        ),
    ):
        if names:
            first = min(names)
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ModelError(
                f"the tensor {first} {problem}{others}",
                where=where,
                hint="check that config.json and the weight files are of the same model, and that "
                "it is not a quantized one",
            )
    numbers: Counter[str] = Counter()
    for stored in found.values():
        numbers[FORMATS[stored.dtype]] += prod(stored.shape)
    return numbers.most_common(1)[0][0]


def _is_copy(name: str, shape: Shape, expected: Mapping[str, Shape]) -> bool:
    return name not in expected and shape == expected.get(COPIES.get(name, ""))


def check_whole(folder: Path, shards: tuple[str, ...]) -> dict[str, Stored]:
    """Open every shard and return what the headers say of its tensors, by name.

    Raises:
        ModelError: a shard is cut short or corrupt; names it.
    """
    found: dict[str, Stored] = {}
    for name in shards:
        found |= _header(folder / name)
    return found


def _header(path: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        # the numpy framework reads headers without importing torch
        with safe_open(path, framework="np") as shard:
            slices = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118
            return {
                name: Stored(shape=tuple(found.get_shape()), dtype=found.get_dtype())
                for name, found in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"the weight file is corrupt or cut short: {error}",
            where=path,
            hint="fetch this file again",
        ) from error
