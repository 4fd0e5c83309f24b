"""entrypoint.tune.attention: that of rows alone, in groups, with their gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from entrypoint.activations import ATTENTION_BLOCK as BLOCK
from entrypoint.tune.attention import _Written, arrange, attend

HEADS, HEAD_DIM = 3, 8
# the second and third row begin as the first does; the last has several blocks of queries
ROWS = [
    [*range(40)],
    [*range(10), *range(40, 55)],
    [*range(25), *range(55, 70)],
    [70],
    [*range(3), *range(71, 71 + 2 * BLOCK)],
]
TOKENS = 71 + 2 * BLOCK


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    """As torchtune has them: a token's heads beside each other for q, a head's tokens for k, v."""
    draw = torch.Generator().manual_seed(2)
    q, k, v = (
        torch.randn(1, TOKENS, HEADS, HEAD_DIM, generator=draw, dtype=torch.float64)
        .transpose(1, 2)
        .to(dtype)
        for _ in range(3)
    )
    return [q.requires_grad_(), k.contiguous().requires_grad_(), v.contiguous().requires_grad_()]


def row_by_row(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    found: dict[int, torch.Tensor] = {}
    for row in ROWS:
        parts = (part[:, :, row] for part in (q, k, v))
        attended = F.scaled_dot_product_attention(*parts, is_causal=True)
        found |= dict(zip(row, attended.unbind(2), strict=True))
    return torch.stack([found[token] for token in range(TOKENS)], dim=2)


def with_gradients(attended: torch.Tensor, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    weights = torch.randn(attended.shape, generator=draw, dtype=torch.float64).to(attended.dtype)
    return [attended.detach(), *torch.autograd.grad((attended * weights).sum(), parts)]


@pytest.mark.parametrize("how", ["attend", "written"])
def test_rows_attend_to_themselves_and_learn_as_if_alone(how: str):
    ways: dict[str, Any] = {"attend": attend, "written": _Written.apply}
    parts = inputs(torch.float64)
    expected = with_gradients(row_by_row(*parts), parts)
    found = with_gradients(ways[how](*parts, arrange(ROWS)), parts)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_in_bf16_it_is_as_exact_as_pytorchs_own():
    exact = inputs(torch.float64)
    wanted = with_gradients(row_by_row(*exact), exact)
    rough = inputs(torch.bfloat16)
    own = with_gradients(row_by_row(*rough), rough)
    found = with_gradients(attend(*rough, arrange(ROWS)), rough)
    for one, other, true in zip(found, own, wanted, strict=True):
        error = (one - true).norm() / true.norm()
        assert error < 1.5 * (other - true).norm() / true.norm()


def test_rows_of_about_the_same_length_lie_side_by_side():
    rows = [[*range(100)], [*range(76)], [*range(74)], [*range(10)]]
    groups = arrange(rows).groups
    assert [(group.rows, group.length) for group in groups] == [(2, 100), (1, 74), (1, 10)]
