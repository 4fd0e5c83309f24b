"""Layers of a model rounded one after the other, each by what reaches it of sample rows.

What reaches a layer has gone through the rounded layers before it. The model's own forward function
leads from layer to layer, so that each gets its masks and positions; at most one layer's weights
are in memory unrounded.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from entrypoint.errors import ModelError
from entrypoint.quantization import rounding
from entrypoint.quantization.rounding import Inputs
from entrypoint.quantization.smoothing import Sample

TOKENS = 2048
"""That go through a layer at once."""

SAMPLED = 512
"""Tokens that a sample keeps of what reaches a layer."""


class Seen(Protocol):
    """What is kept of the inputs of a linear layer."""

    def add(self, tokens: torch.Tensor) -> None:
        """Some more came: [tokens, columns]."""

    def known(self) -> Any:
        """What rounding needs of them all."""


class Moment:
    """The mean of x xT, for GPTQ."""

    def __init__(self, _: int) -> None:
        self.total: torch.Tensor | None = None
        self.tokens = 0

    def add(self, tokens: torch.Tensor) -> None:
        flat = tokens.float()
        if self.total is None:
            self.total = flat.new_zeros(flat.shape[1], flat.shape[1])
        self.total.addmm_(flat.T, flat)
        self.tokens += len(flat)

    def known(self) -> Inputs:
        assert self.total is not None
        return rounding.known(self.total.div_(self.tokens))


class Spread:
    """The largest of each column, and tokens from all over, for SmoothQuant."""

    def __init__(self, tokens: int) -> None:
        self.every = max(tokens // SAMPLED, 1)
        self.tokens = 0
        self.largest: torch.Tensor | None = None
        self.kept: list[torch.Tensor] = []

    def add(self, tokens: torch.Tensor) -> None:
        largest = tokens.abs().amax(0).float()
        self.largest = largest if self.largest is None else largest.maximum(self.largest)
        self.kept.append(tokens[-self.tokens % self.every :: self.every].float())
        self.tokens += len(tokens)

    def known(self) -> Sample:
        assert self.largest is not None
        return Sample(largest=self.largest, tokens=torch.cat(self.kept))


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How layers are rounded."""

    keep: Callable[[int], Seen]
    """Begins to keep what is needed of so many tokens."""
    round_one: Callable[[nn.Linear, Any], None]
    """Rounds a layer's weight in place, by what is known of its inputs."""
    settle: Callable[[], None] = lambda: None
    """Called when the rounded layers of a decoder layer have answered the rows."""


@dataclass(slots=True)
class Watch:
    """What reaches the linear layers of a decoder layer."""

    keep: Callable[[], Seen]
    seen: dict[str, Seen] = field(default_factory=dict)
    leader: dict[str, str] = field(default_factory=dict)
    """Layer -> the first one that reads the same input, as k reads what q does."""
    _valid: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    _met: dict[int, tuple[str, torch.Tensor]] = field(default_factory=dict)

    def begin(self, valid: torch.Tensor) -> None:
        """The next rows come; `valid`, [rows, tokens], says which tokens are no padding."""
        self._valid = valid
        self._met.clear()

    def add(self, name: str, inputs: torch.Tensor) -> None:
        """Look at what reaches a layer, [rows, tokens, columns]."""
        # the tensor is kept, so that no other one gets its id
        self.leader[name], _ = self._met.setdefault(id(inputs), (name, inputs))
        if self.leader[name] != name:
            return
        if name not in self.seen:
            self.seen[name] = self.keep()
        self.seen[name].add(inputs[self._valid])


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
    way: Way,
    done: Callable[[], None] = lambda: None,
) -> int:
    """Round the linear layers of a model, decoder layer by decoder layer.

    Args:
        model: of transformers, with all weights but those of the decoder layers.
        rows: token ids of samples.
        fill: reads a decoder layer's weights.
        alone: linear layers that stay as they are.
        way: how they are rounded.
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
    tokens = int(valid.sum())

    def visit(
        layer: nn.Module, forward: Any, hidden: torch.Tensor, *more: Any, **named: Any
    ) -> Any:
        fill(layer)
        linears = {
            name: module
            for name, module in layer.named_modules()
            if isinstance(module, nn.Linear) and module not in alone
        }
        watch = Watch(keep=lambda: way.keep(tokens))

        def run(write: bool) -> Any:
            answer: Any = None
            for start in range(0, len(rows), at_once):
                part = slice(start, start + at_once)
                watch.begin(valid[part])
                answer = forward(
                    hidden[part],
                    *(_part(value, part, len(rows)) for value in more),
                    **{key: _part(value, part, len(rows)) for key, value in named.items()},
                )
                if write:
                    hidden[part] = answer[0] if isinstance(answer, tuple) else answer
            return answer

        with _watched(linears, watch):
            run(write=False)
        for leader in list(watch.seen):
            inputs = watch.seen.pop(leader).known()
            for name, of in watch.leader.items():
                if of == leader:
                    way.round_one(linears[name], inputs)
        answer = run(write=True)
        way.settle()
        done()
        return (hidden, *answer[1:]) if isinstance(answer, tuple) else hidden

    layers = decoder_layers(model)
    with _visited(layers, visit):
        model.get_decoder()(input_ids=ids, use_cache=False)
    return tokens


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
def _watched(linears: dict[str, nn.Linear], watch: Watch) -> Iterator[None]:
    """Look at what reaches linear layers."""

    def looking(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, given: watch.add(name, given[0])

    hooks = [linear.register_forward_pre_hook(looking(name)) for name, linear in linears.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
