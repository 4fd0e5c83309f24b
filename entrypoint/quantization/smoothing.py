"""Scales moved from a layer's inputs into its weight, before both are rounded to 8 bits. Pure.

Xiao et al. 2022, SmoothQuant (https://arxiv.org/abs/2211.10438): a token's numbers share one scale,
so a few large columns cost all others their precision. Such columns are multiplied by a small
factor and the weight's are divided by it, which changes no result but what rounding makes of it.
"""

from dataclasses import dataclass

import torch

STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8)
"""How much is moved, from 0, where the weight's columns get alike, to 1, where the inputs' do."""
LOWEST, HIGHEST = -128, 127
STEPS = 127.5
"""From zero to the largest number, as in torchao."""
SMALLEST = 1e-5
"""That is divided by; columns below are as good as always zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What is known of a layer's inputs."""

    largest: torch.Tensor
    """Of all tokens, without sign, fp32, [columns]."""
    tokens: torch.Tensor
    """Some of them, fp32, [tokens, columns]."""


def smoothing(weight: torch.Tensor, sample: Sample) -> torch.Tensor:
    """What to multiply the inputs' columns by, and divide the weight's.

    Of several strengths, and of leaving all as it is, the one is taken with which the rounded layer
    answers the sample most like the layer itself.

    Args:
        weight: [rows, columns].

    Returns:
        [columns], in the format of the weight.
    """
    exact = weight.detach().float()
    wanted = sample.tokens @ exact.T
    inputs, columns = (
        one.clamp(min=SMALLEST).log2() for one in (sample.largest, exact.abs().amax(0))
    )
    best = torch.ones_like(inputs)
    least = _error(exact, sample.tokens, best, wanted)
    for strength in STRENGTHS:
        exponents = (1 - strength) * columns - strength * inputs
        # a factor that all columns share would change nothing
        factors = torch.exp2(exponents - exponents.mean()).to(weight.dtype).float()
        error = _error(exact, sample.tokens, factors, wanted)
        if error < least:
            best, least = factors, error
    return best.to(weight.dtype)


def _error(
    weight: torch.Tensor, tokens: torch.Tensor, factors: torch.Tensor, wanted: torch.Tensor
) -> float:
    answer = _rounded(tokens * factors) @ _rounded(weight / factors).T
    return float((answer - wanted).square().sum())


def _rounded(matrix: torch.Tensor) -> torch.Tensor:
    """As it comes back from 8 bits, with a scale for each row."""
    scale = matrix.abs().amax(1, keepdim=True).div_(STEPS).clamp_(min=torch.finfo().tiny)
    return (matrix / scale).round_().clamp_(LOWEST, HIGHEST).mul_(scale)
