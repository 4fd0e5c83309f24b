"""entrypoint.quantization.rounding: what is lost of a layer's output."""

import pytest
import torch

from entrypoint.quantization.rounding import HIGHEST, LOWEST, compensated, fitted_scales, known

GROUP = 32


def layer(rows: int = 40, columns: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and inputs that resemble each other and are larger in some columns."""
    torch.manual_seed(0)
    mixed = torch.randn(600, 20) @ torch.randn(20, columns) + 0.5 * torch.randn(600, columns)
    return torch.randn(rows, columns) * 0.05, mixed * torch.rand(columns).exp2()


def loss(weight: torch.Tensor, rounded: torch.Tensor, inputs: torch.Tensor) -> float:
    """Share of the output that is wrong."""
    return float((inputs @ (rounded - weight).T).norm() / (inputs @ weight.T).norm())


def values(numbers: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return numbers.float() * scale.float().repeat_interleave(GROUP, 1)


def nearest(weight: torch.Tensor) -> torch.Tensor:
    """As torchao's symmetric scheme rounds."""
    scale = weight.view(len(weight), -1, GROUP).abs().amax(-1) / 7.5
    steps = scale.repeat_interleave(GROUP, 1)
    return (weight / steps).round().clamp(LOWEST, HIGHEST) * steps


def test_compensation_and_fitted_scales_each_lower_the_error_of_the_output():
    weight, inputs = layer()
    moment = inputs.T @ inputs / len(inputs)
    importance = moment.diagonal().clone()
    scale = fitted_scales(weight, GROUP, importance, torch.float32)
    numbers = (weight / scale.repeat_interleave(GROUP, 1)).round().clamp(LOWEST, HIGHEST)
    rounded = compensated(weight, known(moment), GROUP, torch.float32)
    plain = loss(weight, nearest(weight), inputs)
    fitted = loss(weight, values(numbers, scale), inputs)
    made_up_for = loss(weight, values(rounded.numbers, rounded.scale), inputs)
    assert fitted < 0.95 * plain
    assert made_up_for < 0.6 * fitted


def test_numbers_have_four_bits_and_scales_the_format_of_the_weights():
    weight, inputs = layer()
    rounded = compensated(weight.bfloat16(), known(inputs.T @ inputs), GROUP, torch.bfloat16)
    assert rounded.numbers.dtype == torch.int8
    assert rounded.scale.dtype == torch.bfloat16
    assert rounded.scale.shape == (40, 3)
    assert int(rounded.numbers.min()) >= LOWEST
    assert int(rounded.numbers.max()) <= HIGHEST


@pytest.mark.parametrize("columns", [32, 64, 160])
def test_columns_that_do_not_resemble_each_other_are_rounded_to_nearest(columns: int):
    """Where nothing can be made up for, the column loop must not do anything, at block borders
    neither."""
    weight, _ = layer(columns=columns)
    rounded = compensated(weight, known(torch.eye(columns)), GROUP, torch.float32)
    steps = rounded.scale.repeat_interleave(GROUP, 1)
    assert torch.equal(
        rounded.numbers, (weight / steps).round().clamp(LOWEST, HIGHEST).to(torch.int8)
    )


def test_the_column_loop_is_the_one_of_the_paper():
    """Held to a loop without blocks, in the order of the importance."""
    weight, inputs = layer(rows=8, columns=160)
    moment = (inputs.T @ inputs / len(inputs)).double().float()
    given = known(moment)
    rounded = compensated(weight, given, GROUP, torch.float32)
    rest, expected = weight.clone(), torch.zeros_like(rounded.numbers)
    for place, column in enumerate(given.order.tolist()):
        step = rounded.scale[:, column // GROUP]
        expected[:, column] = (rest[:, column] / step).round().clamp(LOWEST, HIGHEST)
        error = (rest[:, column] - expected[:, column] * step) / given.factor[place, place]
        later = given.order[place + 1 :]
        rest[:, later] -= error[:, None] * given.factor[place, place + 1 :]
    differing = (rounded.numbers != expected).float().mean()
    # sums in another order may put a number on the other side of a half
    assert differing < 0.01


def test_inputs_that_are_always_zero_and_groups_of_zeros_are_rounded_too():
    weight, inputs = layer()
    weight[:, :GROUP] = 0
    inputs[:, 5] = 0
    rounded = compensated(weight, known(inputs.T @ inputs), GROUP, torch.bfloat16)
    assert torch.isfinite(rounded.scale.float()).all()
    # a scale is never zero; these are the smallest there are
    assert values(rounded.numbers, rounded.scale)[:, :GROUP].abs().max() < 1e-30
