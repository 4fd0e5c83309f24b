"""entrypoint.tune.products: what is computed in fp32, and that it is the same product."""

import pytest
import torch
import torch.nn.functional as F

from entrypoint.tune import products


@pytest.fixture(params=[False, True], ids=["at-once", "in-parts"])
def in_parts(request, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(products, "AT_ONCE", 5 * 16)  # five rows of those below


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("bias", [None, drawn(12, dtype=torch.bfloat16)], ids=["plain", "bias"])
def test_a_weight_in_bf16_is_multiplied_in_the_format_of_the_rows(bias):
    x, weight = drawn(7, 16), drawn(12, 16, dtype=torch.bfloat16)
    wanted = F.linear(x, weight.float(), None if bias is None else bias.float())
    torch.testing.assert_close(products.linear(x, weight, bias), wanted)
    total = drawn(7, 12)
    more = products.linear(x, weight, bias, total.clone())
    torch.testing.assert_close(more, total + wanted)


@pytest.mark.usefixtures("in_parts")
def test_gradients_in_bf16_are_multiplied_in_fp32_and_added():
    gradient, weight = (drawn(*shape, dtype=torch.bfloat16) for shape in ((7, 12), (12, 16)))
    wanted = gradient.float() @ weight.float()
    found = products.times(gradient, weight, torch.float32)
    torch.testing.assert_close(found, wanted)
    total = drawn(7, 16)
    more = products.times(gradient, weight, torch.float32, total.clone())
    torch.testing.assert_close(more, total + wanted)


def test_what_has_one_format_keeps_it():
    x, weight = (drawn(*shape, dtype=torch.bfloat16) for shape in ((7, 16), (12, 16)))
    assert products.linear(x, weight).equal(F.linear(x, weight))
    total = drawn(7, 12, dtype=torch.bfloat16)
    exact = total.float() + x.float() @ weight.float().t()
    torch.testing.assert_close(products.linear(x, weight, None, total), exact.bfloat16())
    assert products.times(x, weight.t(), torch.bfloat16).equal(x @ weight.t())


def test_a_narrow_gradient_is_that_of_the_plain_product():
    gradient, inner = drawn(9, 12), drawn(9, 2)
    torch.testing.assert_close(products.outer(gradient, inner), gradient.t() @ inner)


@pytest.mark.parametrize("slow", [False, True])
def test_only_bf16_of_a_slow_cpu_is_computed_in_fp32(slow: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(products, "SLOW_IN_BF16", slow)
    rows = {dtype: torch.ones(1, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    assert products.precision(rows[torch.float32]) == torch.float32
    wanted = torch.float32 if slow else torch.bfloat16
    assert products.precision(rows[torch.bfloat16]) == wanted
    elsewhere = torch.empty(1, dtype=torch.bfloat16, device="meta")
    assert products.precision(elsewhere) == torch.bfloat16
