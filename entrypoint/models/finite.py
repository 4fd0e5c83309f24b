"""A look into the weights: is there anything but numbers?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from entrypoint.errors import ModelError

if TYPE_CHECKING:
    import numpy

SAMPLE = 4096
"""Elements that are read at the start, in the middle and at the end of each tensor."""
LENGTH_BYTES = 8
"""Of the header's length, at the start of a safetensors file."""


def check_finite(folder: Path, shards: tuple[str, ...]) -> None:
    """Read a sample of every tensor; needs no torch, which numpy's lack of bf16 would suggest.

    Raises:
        ModelError: a sample holds NaN or infinity; names file and tensor.
    """
    import numpy as np

    for name in shards:
        with (folder / name).open("rb") as file:
            for tensor, values in _samples(file):
                if not np.isfinite(values).all():
                    raise ModelError(
                        f"the weight file {name} is corrupt: {tensor} holds NaN or infinity",
                        where=folder / name,
                        hint="fetch this file again, or take another checkpoint",
                    )


def header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """What a safetensors file says of its tensors, and the byte that their data begin at."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    return json.loads(file.read(length)), LENGTH_BYTES + length


def _samples(file: IO[bytes]) -> Iterator[tuple[str, "numpy.ndarray"]]:
    import numpy as np

    # bf16 is the upper half of fp32
    stored = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
    tensors, data = header(file)
    for name, tensor in tensors.items():
        if name == "__metadata__" or tensor["dtype"] not in stored:
            continue
        dtype = np.dtype(stored[tensor["dtype"]])
        begin, end = tensor["data_offsets"]
        count = (end - begin) // dtype.itemsize
        for first in {0, max(count // 2 - SAMPLE // 2, 0), max(count - SAMPLE, 0)}:
            file.seek(data + begin + first * dtype.itemsize)
            values = np.frombuffer(file.read(min(SAMPLE, count) * dtype.itemsize), dtype)
            if tensor["dtype"] == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            yield name, values
