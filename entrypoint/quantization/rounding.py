"""Rounding of a weight matrix to few bits, so that its layer's output changes least. Pure.

Frantar et al. 2022, GPTQ (https://arxiv.org/abs/2210.17323): columns are rounded one after the
other, and what each rounding changes in the layer's output is made up for in the columns that
follow. torchao 0.17 has it for CUDA and its packed int4 only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

LOWEST, HIGHEST = -8, 7
"""Of a signed number of 4 bits."""
CLIPPED = tuple(7.0 + 0.25 * step for step in range(17))
"""Steps from zero to the largest weight of a group that are tried: more of them clip it, and are
finer for all others."""
DAMPING = 0.01
"""Share of the mean that is added to the diagonal, as in the paper."""
BLOCK = 64
"""Columns after which all later ones are corrected at once."""
ROWS = 16_384
"""Rows that are worked on at once; they do not depend on each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounded:
    """A matrix in whole numbers."""

    numbers: torch.Tensor
    """int8, [rows, columns]."""
    scale: torch.Tensor
    """[rows, groups]; a weight is its number times its group's scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What is known of a layer's inputs x."""

    order: torch.Tensor
    """Columns, those with the largest inputs first: there is most to make up for them with."""
    importance: torch.Tensor
    """Mean of x squared for each column."""
    factor: torch.Tensor
    """Upper Cholesky factor of the inverse of the mean of x xT, its columns in `order`."""


def known(moment: torch.Tensor) -> Inputs:
    """What `compensated` needs of a layer's inputs.

    Args:
        moment: mean of x xT, fp32, [columns, columns].
    """
    importance = moment.diagonal().clone()
    order = importance.argsort(descending=True)
    moment = moment[order][:, order]
    # inputs that are always zero, too, get a diagonal by it
    moment.diagonal().add_(DAMPING * importance.mean().clamp(min=1e-12))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    return Inputs(
        order=order, importance=importance, factor=torch.linalg.cholesky(inverse, upper=True)
    )


def fitted_scales(
    weight: torch.Tensor, group: int, importance: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """For each group the scale with which rounding to nearest changes the output least.

    Args:
        weight: fp32, [rows, columns].
        importance: of the columns.
        dtype: that scales are kept in.

    Returns:
        [rows, groups].
    """
    parts = weight.view(len(weight), -1, group)
    weights = importance.view(-1, group)
    largest = parts.abs().amax(-1).clamp(min=torch.finfo(dtype).tiny * 2**8)
    best = largest.new_full(largest.shape, torch.inf)
    found = torch.empty_like(largest)
    for steps in CLIPPED:
        scale = (largest / steps).to(dtype).float()
        rest = (parts / scale[..., None]).round_().clamp_(LOWEST, HIGHEST)
        rest.mul_(scale[..., None]).sub_(parts)
        error = rest.square_().mul_(weights).sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        found = torch.where(better, scale, found)
    return found.to(dtype)


def compensated(weight: torch.Tensor, inputs: Inputs, group: int, dtype: torch.dtype) -> Rounded:
    """Round a weight so that the layer's output changes least on inputs such as these.

    Args:
        weight: [rows, columns].
        group: columns that share a scale.
        dtype: that scales are kept in.
    """
    parts = [
        _compensated(part, inputs, group, dtype) for part in torch.split(weight.detach(), ROWS)
    ]
    return Rounded(
        numbers=torch.cat([part.numbers for part in parts]),
        scale=torch.cat([part.scale for part in parts]),
    )


def _compensated(weight: torch.Tensor, inputs: Inputs, group: int, dtype: torch.dtype) -> Rounded:
    weight = weight.float()
    scale = fitted_scales(weight, group, inputs.importance, dtype)
    order, factor = inputs.order, inputs.factor
    # columns as rows, which are contiguous
    rest = weight.T[order].contiguous()
    steps = scale.float().T[order // group].contiguous()
    numbers = torch.empty_like(rest, dtype=torch.int8)
    for start in range(0, len(rest), BLOCK):
        end = min(start + BLOCK, len(rest))
        within, errors = factor[start:end, start:end], torch.empty_like(rest[start:end])
        with _one_thread():
            for at, column in enumerate(rest[start:end]):
                if at:
                    column = torch.addmv(column, errors[:at].T, within[:at, at], alpha=-1)
                step = steps[start + at]
                number = torch.div(column, step).round_().clamp_(LOWEST, HIGHEST)
                numbers[start + at] = number
                torch.sub(column, number.mul_(step), out=errors[at])
                errors[at].div_(within[at, at])
        rest[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    back = torch.empty_like(numbers)
    back[order] = numbers
    return Rounded(numbers=back.T.contiguous(), scale=scale)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads cost more than they gain in steps as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
