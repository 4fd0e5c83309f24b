"""A quantized copy as torchtune saves one: a .pt file with the weights of torchtune's model.

Weights are quantized once, in transformers' layout. torchtune orders the rows of some of them
otherwise, and rows keep their scales wherever they go, so both forms hold the same numbers.

In NF4 scales are rounded, too, several rows' together. torchao does so otherwise than bitsandbytes,
so there both forms have the same numbers, but scales that differ a little.
"""

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from torchao.dtypes.nf4tensor import NF4Tensor, SubclassTensorArgs, to_nf4
from torchao.utils import TorchAOBaseTensor

from entrypoint.methods import nf4_blocks
from entrypoint.models.card import Model
from entrypoint.quantization.packed import Packed
from entrypoint.tune import compat

Weights = Iterable[tuple[str, torch.Tensor | Packed]]
"""Of transformers' model, by name, quantized or not; without what is tied to other weights."""


def write(weights: Weights, card: Model, path: Path) -> None:
    """Save the weights of transformers' model as torchtune's.

    Args:
        weights: one after the other.
        card: of the model that was quantized.
    """
    torch.save(converted(weights, card), path, pickle_module=EnumsByValue)


class _Pickler(pickle.Pickler):
    def reducer_override(self, found: Any) -> Any:
        return (type(found), (found.value,)) if isinstance(found, Enum) else NotImplemented


EnumsByValue = SimpleNamespace(__name__="pickle", Pickler=_Pickler)
"""pickle, but for enumerations, which torchao's weights hold: Python 3.11.0 to 3.11.3 pickle these
by `getattr`, and `torch.load` refuses that where it reads only weights."""


def converted(weights: Weights, card: Model) -> dict[str, torch.Tensor]:
    """The weights in torchtune's layout and under its names; see `write`."""
    compat.apply()
    from torchtune.training import FullModelHFCheckpointer

    with TemporaryDirectory() as scratch:
        # it makes a folder for what it will never save
        checkpointer = FullModelHFCheckpointer(
            checkpoint_dir=str(card.folder),
            checkpoint_files=[card.shards[0]],
            model_type=card.model_type,
            output_dir=scratch,
        )
    return {
        renamed: taken(weight, rows)
        for name, weight in weights
        for renamed, rows in _rows(checkpointer, name, weight.shape)
    }


def in_nf4(weight: Packed) -> torch.Tensor:
    """A weight in torchao's form. It is not unpacked: `to_nf4` takes many times a weight's size."""
    blocks = nf4_blocks(weight.shape.numel())
    # entrypoint.schemes has refused columns that 64 does not divide
    assert blocks is not None
    dtype, device = weight.scale.dtype, weight.scale.device
    scales, factor, mean = NF4Tensor.double_quantize_scalers(weight.scale.flatten(), 1, blocks[1])
    packed: torch.Tensor = NF4Tensor(
        SubclassTensorArgs(
            original_shape=weight.shape,
            original_strides=(weight.shape[1], 1),
            storage_offset=0,
            dtype=dtype,
            device=device,
            requires_grad=False,
        ),
        blocks[0],
        weight.scale.numel(),
        blocks[1],
        quantized_scalers=scales,
        quantization_factor=factor,
        scaler_mean=mean,
        quantized_data=weight.pairs.flatten(),
        # its table is in no other place
        nf4=to_nf4(torch.ones(blocks[0], dtype=dtype, device=device), blocks[0], 1).nf4,
    )
    return packed


def taken(weight: torch.Tensor | Packed, rows: torch.Tensor) -> torch.Tensor:
    """Some rows of a weight, in another order; of a quantized one, with their scales."""
    if isinstance(weight, Packed):
        return in_nf4(weight.rows(rows))
    if torch.equal(rows, torch.arange(len(weight))):
        return weight.detach()
    rows = rows.to(weight.device)
    if isinstance(weight, TorchAOBaseTensor):
        # a vector is of the columns: what their inputs are multiplied by
        found: torch.Tensor = weight._apply_fn_to_data(
            lambda part: part[rows] if part.dim() > 1 else part
        )
        return found
    return weight.detach()[rows]


def _rows(checkpointer: Any, name: str, shape: torch.Size) -> Iterator[tuple[str, torch.Tensor]]:
    """Names that a weight has in torchtune, and which of its rows are there.

    torchtune's own conversion is given the numbers of the rows in the place of the weight.
    """
    numbers = torch.arange(shape[0]).view(-1, *(1 for _ in shape[1:])).expand(shape)
    with _instead_of_files({name: numbers}):
        moved = checkpointer.load_checkpoint()["model"]
    for renamed, rows in moved.items():
        yield renamed, rows.flatten(1)[:, 0] if rows.dim() > 1 else rows


@contextmanager
def _instead_of_files(state: dict[str, torch.Tensor]) -> Iterator[None]:
    """Have the checkpointer convert `state`; its conversion is part of its reading of files.

    After each file, here after each weight, it would also look for garbage in the whole process,
    which takes longer than everything else.
    """
    from torchtune.training.checkpointing import _checkpointer

    stock = _checkpointer.safe_torch_load, _checkpointer.gc
    _checkpointer.safe_torch_load = lambda *_, **__: dict(state)
    _checkpointer.gc = SimpleNamespace(collect=lambda: 0)
    try:
        yield
    finally:
        _checkpointer.safe_torch_load, _checkpointer.gc = stock
