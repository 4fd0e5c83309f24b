"""entrypoint.quantization.smoothing: what is moved from inputs into a weight."""

import pytest
import torch

from entrypoint.quantization.smoothing import Sample, smoothing


def sample_of(tokens: torch.Tensor) -> Sample:
    return Sample(largest=tokens.abs().amax(0), tokens=tokens)


@pytest.fixture
def uneven() -> torch.Tensor:
    """Tokens with two columns that are a hundred times as large as the others."""
    tokens = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
    tokens[:, [3, 40]] *= 100
    return tokens


def test_large_columns_are_made_smaller(uneven: torch.Tensor):
    factors = smoothing(torch.randn(32, 64), sample_of(uneven))
    others = [index for index in range(64) if index not in (3, 40)]
    assert factors[[3, 40]].max() < 0.2 * factors[others].median()


def test_the_rounded_layer_answers_more_like_itself(uneven: torch.Tensor):
    """Through torchao, and on tokens that were not looked at."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    weight = torch.randn(32, 64)
    errors = []
    for factors in (torch.ones(64), smoothing(weight, sample_of(uneven[:128]))):
        linear = torch.nn.Linear(64, 32, bias=False)
        linear.weight = torch.nn.Parameter(weight / factors, requires_grad=False)
        quantize_(linear, Int8DynamicActivationInt8WeightConfig(version=2))
        linear.weight.act_pre_scale = factors
        with torch.no_grad():
            errors.append((linear(uneven[128:]) - uneven[128:] @ weight.T).norm())
    assert errors[1] < 0.5 * errors[0]


def test_what_has_nothing_to_gain_stays_as_it_is():
    # one bit and its sign: rounding loses nothing
    tokens, weight = torch.randn(64, 32).sign(), torch.randn(16, 32).sign()
    assert torch.equal(smoothing(weight, sample_of(tokens)), torch.ones(32))


def test_columns_that_are_always_zero_keep_factors_finite(uneven: torch.Tensor):
    uneven[:, 7] = 0
    weight = torch.randn(32, 64).bfloat16()
    weight[:, 9] = 0
    factors = smoothing(weight, sample_of(uneven))
    assert factors.dtype == torch.bfloat16
    assert factors.isfinite().all()
    assert (factors > 0).all()
