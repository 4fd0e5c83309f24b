"""Operations of a decoder's layers, each with its gradient written out.

Fewer passes over memory are made and less is kept for them: autograd's own way keeps each result
between two operations and makes a pass for each of them. What is computed is the same; sums are
rounded in another order.
"""

from typing import Any

import torch
import torch.nn.functional as F

from entrypoint.tune import products

Weights = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, float]
"""Of a projection: weight, bias, the adapter's two, and what its part is multiplied by."""
Gradients = tuple[torch.Tensor | None, ...]


class Norm(torch.autograd.Function):
    """x / rms(x) * scale, in fp32 (Zhang and Sennrich 2019)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = size.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, inverse)
        normed = wide * inverse if wide is x else wide.mul_(inverse)
        return normed.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        x, scale, inverse = ctx.saved_tensors
        wide = gradient.float()
        of_scale = None
        if ctx.needs_input_grad[1]:
            of_scale = (wide * (x * inverse)).flatten(0, -2).sum(0).to(scale.dtype)
        wide, x_wide = wide * scale, x.float()
        along = torch.linalg.vecdot(wide, x_wide).div_(-x.shape[-1]).unsqueeze(-1)
        of_x = wide.mul_(inverse).addcmul_(x_wide, along.mul_(inverse.pow(3)))
        return of_x.to(x.dtype), of_scale, None


class Rotate(torch.autograd.Function):
    """Pairs of neighbours turned by their position's angle, as complex numbers (Su et al. 2021)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(turns)
        return _turned(x, turns)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        (turns,) = ctx.saved_tensors
        return _turned(gradient, turns.conj().resolve_conj()), None


def _turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    shape = (*x.shape[:-1], -1, 2)
    pairs = torch.view_as_complex(x.float().reshape(shape))
    # no view of the product, which Gemma 2 would not be allowed to change in place
    turned = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    torch.mul(pairs, turns, out=torch.view_as_complex(turned.view(shape)))
    return turned.to(x.dtype)


def _project(x: torch.Tensor, weights: Weights) -> tuple[torch.Tensor, torch.Tensor | None]:
    """[tokens, inputs] -> [tokens, outputs], and what the adapter's second weight is multiplied
    by, [tokens, rank], in the format of x."""
    weight, bias, a, b, scale = weights
    if a is None or b is None:
        return products.linear(x, weight, bias), None
    a, b = a.to(x.dtype), b.to(x.dtype)
    inner = products.linear(x, a).mul_(scale)
    # the adapter's part comes first and is rounded by itself: in the first steps it is less than
    # the last bit of most results, and would be lost if it were added to these
    return products.linear(x, weight, bias, products.linear(inner, b)), inner


def _gradients(
    gradient: torch.Tensor,
    x: torch.Tensor,
    inner: torch.Tensor | None,
    weights: Weights,
    wanted: tuple[bool, ...],
    of_x: torch.Tensor | None = None,
) -> Gradients:
    """Of a projection, computed in the format of x.

    Args:
        wanted: for x, weight, bias, a and b.
        of_x: what x's gradient is added to, in place.
    """
    weight, _, a, b, scale = weights
    wide, of_inner = x.dtype, None
    if a is not None and b is not None:
        of_inner = products.times(gradient, b.to(wide), wide).mul_(scale)
    if wanted[0]:
        of_x = products.times(gradient, weight, wide, of_x)
        if of_inner is not None:
            assert a is not None
            products.times(of_inner, a.to(wide), wide, of_x)
    if any(wanted[1:]):
        gradient = gradient.to(wide)
    return (
        of_x,
        gradient.t() @ x if wanted[1] else None,
        gradient.sum(0) if wanted[2] else None,
        of_inner.t() @ x if wanted[3] and of_inner is not None else None,
        products.outer(gradient, inner) if wanted[4] and inner is not None else None,
    )


def _to(dtype: torch.dtype, part: torch.Tensor | None) -> torch.Tensor | None:
    return None if part is None else part.to(dtype)


def _shaped(rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[tokens, outputs] in the shape of x but for the last size."""
    # losses write into logits, which autograd forbids in a view that such a function returns
    return rows if x.dim() == 2 else rows.view(*x.shape[:-1], rows.shape[-1])


class Project(torch.autograd.Function):
    """A linear layer and the adapter beside it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *weights: Any) -> torch.Tensor:
        flat = x.flatten(0, -2).to(products.precision(x))
        out, inner = _project(flat, weights)
        ctx.save_for_backward(x, _to(x.dtype, inner), *weights[:4])
        ctx.scale = weights[4]
        return _shaped(out.to(x.dtype), x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        x, inner, *weights = ctx.saved_tensors
        wide = products.precision(x)
        of_x, *others = _gradients(
            gradient.reshape(-1, gradient.shape[-1]),
            x.flatten(0, -2).to(wide),
            _to(wide, inner),
            (*weights, ctx.scale),
            ctx.needs_input_grad[:5],
        )
        # autograd brings gradients into the formats of what they are of
        return (None if of_x is None else of_x.view(x.shape), *others, None)


class Logits(torch.autograd.Function):
    """An output head that computes in fp32; so are its results, since losses take them so."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        flat = x.flatten(0, -2).to(products.precision(x))
        return _shaped(products.linear(flat, weight), x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        of_x = products.times(flat, weight, flat.dtype).view(x.shape)
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight, wide = torch.empty_like(weight), x.flatten(0, -2).to(flat.dtype)
            for rows in products.parts(weight):
                of_weight[rows] = flat[:, rows].t() @ wide
        return of_x, of_weight


class Gated(torch.autograd.Function):
    """down(silu(gate(x)) * up(x)), each with its adapter (Shazeer 2020)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *weights: Any) -> torch.Tensor:
        flat = x.flatten(0, -2).to(products.precision(x))
        gate, up, down = weights[:5], weights[5:10], weights[10:]
        gates, inner_gate = _project(flat, gate)
        ups, inner_up = _project(flat, up)
        out, inner_down = _project(F.silu(gates).mul_(ups), down)
        kept = (gates, ups, inner_gate, inner_up, inner_down)
        ctx.save_for_backward(
            x, *(_to(x.dtype, part) for part in kept), *gate[:4], *up[:4], *down[:4]
        )
        ctx.scales = gate[4], up[4], down[4]
        return _shaped(out.to(x.dtype), x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        x, *kept = ctx.saved_tensors
        wide, rest = products.precision(x), kept[5:]
        gates, ups = (part.to(wide) for part in kept[:2])
        inner_gate, inner_up, inner_down = (_to(wide, part) for part in kept[2:5])
        gate, up, down = (
            (*rest[4 * number : 4 * number + 4], ctx.scales[number]) for number in range(3)
        )
        needs, flat = ctx.needs_input_grad, x.flatten(0, -2).to(wide)
        active = F.silu(gates)
        product = active * ups if any(needs[number] for number in (11, 13)) else active
        of_product, *of_down = _gradients(
            gradient.reshape(-1, gradient.shape[-1]).to(wide),
            product,
            inner_down,
            down,
            (True, *needs[11:15]),
        )
        assert of_product is not None
        of_ups = active.mul_(of_product)
        of_gates = torch.ops.aten.silu_backward(of_product.mul_(ups), gates)
        of_x, *of_up = _gradients(of_ups, flat, inner_up, up, (needs[0], *needs[6:10]))
        of_x, *of_gate = _gradients(of_gates, flat, inner_gate, gate, (needs[0], *needs[1:5]), of_x)
        of_x = None if of_x is None else of_x.view(x.shape)
        return (of_x, *of_gate, None, *of_up, None, *of_down, None)
