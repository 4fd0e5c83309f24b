"""Layers of a model rounded one after the other, each by what reaches it of sample rows.

What reaches a layer has gone through the rounded layers before it. The model's own forward function
leads from layer to layer, so that each gets its masks and positions; at most one layer's weights
are in memory unrounded.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from entrypoint.errors import ModelError
from entrypoint.quantization.rounding import Inputs, known

TOKENS = 2048
"""That go through a layer at once."""

Round = Callable[[nn.Linear, Inputs], None]


@dataclass(slots=True)
class Moments:
    """Second moments of what reaches the linear layers of a decoder layer."""

    total: dict[str, torch.Tensor] = field(default_factory=dict)
    """Name of a layer -> sum of x xT, fp32."""
    leader: dict[str, str] = field(default_factory=dict)
    """Layer -> the first one that reads the same input, as k reads what q does."""
    tokens: int = 0
    _valid: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    _seen: dict[int, tuple[str, torch.Tensor]] = field(default_factory=dict)

    def begin(self, valid: torch.Tensor) -> None:
        """The next rows come; `valid`, [rows, tokens], says which tokens are no padding."""
        self._valid = valid
        self._seen.clear()
        self.tokens += int(valid.sum())

    def add(self, name: str, inputs: torch.Tensor) -> None:
        """Count what reaches a layer, [rows, tokens, columns]."""
        # the tensor is kept, so that no other one gets its id
        self.leader[name], _ = self._seen.setdefault(id(inputs), (name, inputs))
        if self.leader[name] != name:
            return
        flat = inputs[self._valid].float()
        if name not in self.total:
            self.total[name] = flat.new_zeros(flat.shape[1], flat.shape[1])
        self.total[name].addmm_(flat.T, flat)


def decoder_layers(model: Any) -> nn.ModuleList:
    """The layers that follow each other.

    Raises:
        ModelError: the model has none that we find.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(
        f"transformers' {type(model).__name__} has no list of its {count} layers",
        where="--calibration-rows",
        hint="round without looking at rows: --calibration-rows 0",
    )


@torch.no_grad()
def round_layers(
    model: Any,
    rows: Sequence[Sequence[int]],
    *,
    fill: Callable[[nn.Module], None],
    alone: Collection[nn.Module],
    round_one: Round,
    done: Callable[[], None] = lambda: None,
) -> int:
    """Round the linear layers of a model, decoder layer by decoder layer.

    Args:
        model: of transformers, with all weights but those of the decoder layers.
        rows: token ids of samples.
        fill: reads a decoder layer's weights.
        alone: linear layers that stay as they are.
        round_one: rounds a layer's weight in place.
        done: called after each layer.

    Returns:
        Tokens that each layer has seen.

    Raises:
        ModelError: see `decoder_layers`.
    """
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    valid = torch.zeros(len(rows), longest, dtype=torch.bool)
    for at, row in enumerate(rows):
        # padding follows, which a causal model does not look at
        ids[at, : len(row)] = torch.tensor(row)
        valid[at, : len(row)] = True
    device = model.get_input_embeddings().weight.device
    ids, valid = ids.to(device), valid.to(device)
    at_once = max(TOKENS // longest, 1)

    def visit(
        layer: nn.Module, forward: Any, hidden: torch.Tensor, *more: Any, **named: Any
    ) -> Any:
        fill(layer)
        linears = {
            name: module
            for name, module in layer.named_modules()
            if isinstance(module, nn.Linear) and module not in alone
        }
        moments = Moments()

        def run(write: bool) -> Any:
            answer: Any = None
            for start in range(0, len(rows), at_once):
                part = slice(start, start + at_once)
                moments.begin(valid[part])
                answer = forward(
                    hidden[part],
                    *(_part(value, part, len(rows)) for value in more),
                    **{key: _part(value, part, len(rows)) for key, value in named.items()},
                )
                if write:
                    hidden[part] = answer[0] if isinstance(answer, tuple) else answer
            return answer

        with _watched(linears, moments):
            run(write=False)
        for leader, total in moments.total.items():
            inputs = known(total.div_(moments.tokens))
            for name, of in moments.leader.items():
                if of == leader:
                    round_one(linears[name], inputs)
        moments.total.clear()
        answer = run(write=True)
        done()
        return (hidden, *answer[1:]) if isinstance(answer, tuple) else hidden

    layers = decoder_layers(model)
    with _visited(layers, visit):
        model.get_decoder()(input_ids=ids, use_cache=False)
    return int(valid.sum())


def _part(value: Any, part: slice, rows: int) -> Any:
    """What a layer is given beside its input, for some of the rows."""
    if isinstance(value, tuple):
        return tuple(_part(one, part, rows) for one in value)
    by_row = isinstance(value, torch.Tensor) and value.dim() > 1 and len(value) == rows
    return value[part] if by_row else value


@contextmanager
def _visited(layers: nn.ModuleList, visit: Callable[..., Any]) -> Iterator[None]:
    """Call `visit` in the place of each layer's forward function, with that function."""
    originals = [layer.forward for layer in layers]

    def calling(layer: nn.Module, forward: Any) -> Any:
        return lambda *given, **named: visit(layer, forward, *given, **named)

    try:
        for layer, forward in zip(layers, originals, strict=True):
            layer.forward = calling(layer, forward)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


@contextmanager
def _watched(linears: dict[str, nn.Linear], moments: Moments) -> Iterator[None]:
    """Count what reaches linear layers."""

    def counting(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, given: moments.add(name, given[0])

    hooks = [linear.register_forward_pre_hook(counting(name)) for name, linear in linears.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
