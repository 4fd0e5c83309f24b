"""entrypoint.quantization.rounding: what is lost of a layer's output."""

import pytest
import torch

from entrypoint.quantization import nf4
from entrypoint.quantization.rounding import (
    Grid,
    Integers,
    Table,
    compensated,
    fitted_scales,
    known,
)

GROUP = 32
INTEGERS, GRID = Integers(), nf4.numbers(torch.device("cpu"))
EIGHTHS = Table(torch.arange(-8, 8) / 8, largest=[one / 8 for one in Integers.largest])
"""The same numbers at other scales, but where one lies in the middle between two."""
GRIDS = pytest.mark.parametrize("grid", [INTEGERS, EIGHTHS, GRID], ids=["4 bits", "table", "nf4"])


def layer(rows: int = 40, columns: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and inputs that resemble each other and are larger in some columns."""
    torch.manual_seed(0)
    mixed = torch.randn(600, 20) @ torch.randn(20, columns) + 0.5 * torch.randn(600, columns)
    return torch.randn(rows, columns) * 0.05, mixed * torch.rand(columns).exp2()


def loss(weight: torch.Tensor, rounded: torch.Tensor, inputs: torch.Tensor) -> float:
    """Share of the output that is wrong."""
    return float((inputs @ (rounded - weight).T).norm() / (inputs @ weight.T).norm())


def values(codes: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
    return grid.number(codes.float() if grid is INTEGERS else codes.int()) * steps(scale)


def steps(scale: torch.Tensor) -> torch.Tensor:
    return scale.float().repeat_interleave(GROUP, 1)


def nearest(weight: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The largest weight of a group is the largest number, or half a step beyond it, which is how
    torchao's symmetric scheme rounds."""
    largest = {INTEGERS: 7.5, EIGHTHS: 7.5 / 8}.get(grid, 1)
    scale = weight.view(len(weight), -1, GROUP).abs().amax(-1) / largest
    return values(grid.code(weight / steps(scale)), scale, grid)


@GRIDS
def test_compensation_and_fitted_scales_each_lower_the_error_of_the_output(grid: Grid):
    weight, inputs = layer()
    moment = inputs.T @ inputs / len(inputs)
    importance = moment.diagonal().clone()
    scale = fitted_scales(weight, GROUP, importance, grid)
    rounded = values(grid.code(weight / steps(scale)), scale, grid)
    codes = compensated(weight, known(moment), scale, grid)
    plain = loss(weight, nearest(weight, grid), inputs)
    fitted = loss(weight, rounded, inputs)
    made_up_for = loss(weight, values(codes, scale, grid), inputs)
    assert fitted < (0.98 if grid is GRID else 0.95) * plain
    assert made_up_for < 0.6 * fitted


@GRIDS
def test_codes_have_four_bits_and_scales_the_format_of_the_weights(grid: Grid):
    weight, inputs = layer()
    given = known(inputs.T @ inputs)
    scale = fitted_scales(weight.bfloat16(), GROUP, given.importance, grid)
    assert scale.dtype == torch.bfloat16
    assert scale.shape == (40, 3)
    codes = compensated(weight.bfloat16(), given, scale, grid)
    assert codes.dtype == torch.int8
    lowest, highest = (-8, 7) if grid is INTEGERS else (0, 15)
    assert (int(codes.min()), int(codes.max())) == (lowest, highest)


@GRIDS
@pytest.mark.parametrize("columns", [32, 64, 160])
def test_columns_that_do_not_resemble_each_other_are_rounded_to_nearest(columns: int, grid: Grid):
    """Where nothing can be made up for, the column loop must not do anything, at block borders
    neither."""
    weight, _ = layer(columns=columns)
    given = known(torch.eye(columns))
    scale = fitted_scales(weight, GROUP, given.importance, grid)
    codes = compensated(weight, given, scale, grid)
    assert torch.equal(codes, grid.code(weight / steps(scale)).to(torch.int8))


@GRIDS
def test_the_column_loop_is_the_one_of_the_paper(grid: Grid):
    """Held to a loop without blocks, in the order of the importance."""
    weight, inputs = layer(rows=8, columns=160)
    given = known((inputs.T @ inputs / len(inputs)).double().float())
    scale = fitted_scales(weight, GROUP, given.importance, grid)
    codes = compensated(weight, given, scale, grid)
    rest, expected = weight.clone(), torch.zeros_like(codes)
    for place, column in enumerate(given.order.tolist()):
        step = scale[:, column // GROUP]
        code = grid.code(rest[:, column] / step)
        expected[:, column] = code
        error = (rest[:, column] - grid.number(code) * step) / given.factor[place, place]
        later = given.order[place + 1 :]
        rest[:, later] -= error[:, None] * given.factor[place, place + 1 :]
    differing = (codes != expected).float().mean()
    # sums in another order may put a number on the other side of a half
    assert differing < 0.01


def test_a_table_finds_the_nearest_of_its_numbers_and_the_last_ones_beyond_them():
    numbers = torch.tensor([-1.0, -0.25, 0.0, 0.5, 1.0])
    table = Table(numbers, largest=[1])
    given = torch.linspace(-1.5, 1.5, 1001)
    by_distance = (given[:, None] - numbers).abs().argmin(1)
    assert torch.equal(table.code(given.clone()).long(), by_distance)
    assert torch.equal(table.number(table.code(given.clone())), numbers[by_distance])


@GRIDS
def test_inputs_that_are_always_zero_and_groups_of_zeros_are_rounded_too(grid: Grid):
    weight, inputs = layer()
    weight[:, :GROUP] = 0
    inputs[:, 5] = 0
    given = known(inputs.T @ inputs)
    scale = fitted_scales(weight.bfloat16(), GROUP, given.importance, grid)
    codes = compensated(weight.bfloat16(), given, scale, grid)
    assert torch.isfinite(scale.float()).all()
    # a scale is never zero; these are the smallest there are
    assert values(codes, scale, grid)[:, :GROUP].abs().max() < 1e-30
