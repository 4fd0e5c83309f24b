"""Matrix products of bf16 numbers, on CPUs that are slow at them.

Such a CPU multiplies fp32 faster, even when numbers are converted there and back. Nothing is lost
by that: products of bf16 are summed in fp32 and rounded in the end anyway.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from entrypoint import hardware

AT_ONCE = 2**20
"""Numbers of a weight that are in fp32 at a time."""
SLOW_IN_BF16 = hardware.is_slow_in_bf16()
"""Whether this machine's CPU is such a one: known before torch.compile follows what reads it."""


def precision(x: torch.Tensor) -> torch.dtype:
    """The format to compute products of x in: its own, or fp32 where that is faster."""
    narrow = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    return torch.float32 if narrow and SLOW_IN_BF16 else x.dtype


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    total: torch.Tensor | None = None,
) -> torch.Tensor:
    """x times the weight's transpose, in the format of x.

    Args:
        x: [tokens, inputs]
        weight: [outputs, inputs]
        bias: [outputs]
        total: what it is added to, in place, before the sum is rounded: [tokens, outputs]

    Returns:
        [tokens, outputs]
    """
    if total is None and weight.dtype == x.dtype:
        return F.linear(x, weight, bias)
    out = x.new_empty(len(x), len(weight)) if total is None else total
    for rows, part in _converted(weight, x.dtype):
        if total is None:
            torch.mm(x, part.t(), out=out[:, rows])
        else:
            out[:, rows].addmm_(x, part.t())
    return out if bias is None else out.add_(bias)


def outer(gradient: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """The gradient's transpose times what is as narrow as an adapter.

    Args:
        gradient: [tokens, outputs]
        inner: [tokens, rank]

    Returns:
        [outputs, rank]
    """
    # in the other order MKL uses one thread
    return (inner.t() @ gradient).t()


def parts(weight: torch.Tensor) -> list[slice]:
    """Rows of a weight that are converted at a time."""
    rows = max(AT_ONCE // weight.shape[1], 1)
    return [slice(start, start + rows) for start in range(0, len(weight), rows)]


def times(
    x: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype, total: torch.Tensor | None = None
) -> torch.Tensor:
    """x times the weight, computed in `dtype`.

    Args:
        x: [tokens, outputs]
        weight: [outputs, inputs]
        total: what it is added to, in place: [tokens, inputs], in that format.
    """
    if x.dtype == weight.dtype == dtype:
        return x @ weight if total is None else total.addmm_(x, weight)
    for rows, part in _converted(weight, dtype):
        columns = x[:, rows].to(dtype)
        total = columns @ part if total is None else total.addmm_(columns, part)
    assert total is not None
    return total


def _converted(weight: torch.Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows of a weight and what they are in another format, part by part. The next part overwrites
    it, in memory that is in the cache already."""
    if weight.dtype == dtype:
        yield slice(None), weight
        return
    places = parts(weight)
    room = torch.empty_like(weight[places[0]], dtype=dtype)
    for rows in places:
        part = weight[rows]
        yield rows, room[: len(part)].copy_(part)
