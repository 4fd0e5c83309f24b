"""Rounding of a weight matrix to few bits, so that its layer's output changes least. Pure.

Frantar et al. 2022, GPTQ (https://arxiv.org/abs/2210.17323): columns are rounded one after the
other, and what each rounding changes in the layer's output is made up for in the columns that
follow. torchao 0.17 has it for CUDA and its packed int4 only.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

DAMPING = 0.01
"""Share of the mean that is added to the diagonal, as in the paper."""
BLOCK = 64
"""Columns after which all later ones are corrected at once."""
ROWS = 16_384
"""Rows that are worked on at once; they do not depend on each other."""


class Grid(Protocol):
    """The numbers that a weight can become, when it is divided by its scale."""

    @property
    def largest(self) -> Sequence[float]:
        """At which the largest weight of a group is tried to be: beyond the last number more of
        them are clipped, and the numbers lie closer for all others."""

    def code(self, quotients: torch.Tensor) -> torch.Tensor:
        """How the nearest numbers are stored; the quotients may be written over."""

    def number(self, codes: torch.Tensor) -> torch.Tensor:
        """What codes stand for, in fp32; in the memory of the codes, if they are in fp32."""


class Integers:
    """Signed numbers of 4 bits, which stand for themselves."""

    lowest, highest = -8, 7
    largest = tuple(7.0 + 0.25 * step for step in range(17))

    def code(self, quotients: torch.Tensor) -> torch.Tensor:
        return quotients.round_().clamp_(self.lowest, self.highest)

    def number(self, codes: torch.Tensor) -> torch.Tensor:
        return codes


class Table:
    """Any numbers; their places in the table are stored.

    Args:
        numbers: fp32, ascending, where the weights are that become them.
        largest: see `Grid`.
    """

    def __init__(self, numbers: torch.Tensor, largest: Sequence[float]) -> None:
        self.numbers, self.largest = numbers, largest
        self._borders = (numbers[1:] + numbers[:-1]) / 2

    def code(self, quotients: torch.Tensor) -> torch.Tensor:
        return torch.bucketize(quotients, self._borders, out_int32=True)

    def number(self, codes: torch.Tensor) -> torch.Tensor:
        return self.numbers[codes]


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
    weight: torch.Tensor, group: int, importance: torch.Tensor, grid: Grid
) -> torch.Tensor:
    """For each group the scale with which rounding to nearest changes the output least.

    Args:
        weight: [rows, columns].
        group: columns that share a scale.
        importance: of the columns; see `Inputs`.
        grid: what weights are rounded to.

    Returns:
        [rows, groups], in the format of the weight.
    """
    parts = torch.split(weight.detach(), ROWS)
    return torch.cat([_fitted_scales(part, group, importance, grid) for part in parts])


def _fitted_scales(
    weight: torch.Tensor, group: int, importance: torch.Tensor, grid: Grid
) -> torch.Tensor:
    parts, dtype = weight.float().view(len(weight), -1, group), weight.dtype
    weights = importance.view(-1, group)
    largest = parts.abs().amax(-1).clamp(min=torch.finfo(dtype).tiny * 2**8)
    best = largest.new_full(largest.shape, torch.inf)
    found = torch.empty_like(largest)
    for most in grid.largest:
        scale = (largest / most).to(dtype).float()
        rest = grid.number(grid.code(parts / scale[..., None]))
        rest.mul_(scale[..., None]).sub_(parts)
        error = rest.square_().mul_(weights).sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        found = torch.where(better, scale, found)
    return found.to(dtype)


def compensated(
    weight: torch.Tensor, inputs: Inputs, scale: torch.Tensor, grid: Grid
) -> torch.Tensor:
    """Round a weight so that the layer's output changes least on inputs such as these.

    Args:
        weight: [rows, columns].
        scale: [rows, groups]; groups divide the columns evenly.
        grid: what weights are rounded to.

    Returns:
        Codes, int8, [rows, columns]. A weight becomes its code's number times its group's scale.
    """
    parts = zip(torch.split(weight.detach(), ROWS), torch.split(scale, ROWS), strict=True)
    return torch.cat([_compensated(part.float(), inputs, of, grid) for part, of in parts])


def _compensated(
    weight: torch.Tensor, inputs: Inputs, scale: torch.Tensor, grid: Grid
) -> torch.Tensor:
    order, factor = inputs.order, inputs.factor
    group = weight.shape[1] // scale.shape[1]
    # columns as rows, which are contiguous
    rest = weight.T[order].contiguous()
    steps = scale.float().T[order // group].contiguous()
    codes = torch.empty_like(rest, dtype=torch.int8)
    for start in range(0, len(rest), BLOCK):
        end = min(start + BLOCK, len(rest))
        within, errors = factor[start:end, start:end], torch.empty_like(rest[start:end])
        with _one_thread():
            for at, column in enumerate(rest[start:end]):
                if at:
                    column = torch.addmv(column, errors[:at].T, within[:at, at], alpha=-1)
                step = steps[start + at]
                code = grid.code(torch.div(column, step))
                codes[start + at] = code
                torch.sub(column, grid.number(code).mul_(step), out=errors[at])
                errors[at].div_(within[at, at])
        rest[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    back = torch.empty_like(codes)
    back[order] = codes
    return back.T.contiguous()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads cost more than they gain in steps as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
