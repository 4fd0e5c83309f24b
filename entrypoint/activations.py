"""What a forward and a backward pass hold beside the weights, in bytes. Pure arithmetic.

Counted by what the layers keep for the gradient: `tune/gradients.py` and `tune/attention.py`, or
torchtune's own layers where a method or a recipe leaves those.
"""

import functools
from dataclasses import dataclass
from math import prod

from entrypoint.methods import (
    LORA_RANK,
    LORA_TARGETS,
    TRAITS,
    is_written_out,
    linear_weights,
    nf4_blocks,
)
from entrypoint.models.card import BYTES_PER_ELEMENT, Model
from entrypoint.models.tensors import Shape
from entrypoint.settings import Settings

CHUNK = 512
"""Most tokens whose logits are held at a time, by the losses of `tune/`."""
KEPT_PROBABILITIES = 256
"""Longest row whose attention probabilities are kept for the gradient, by `tune.attention`."""
ATTENTION_BLOCK = 128
"""Queries at a time there: what they cannot see of later keys is not computed."""
WIDE_LOGITS = {"sft": 2, "dpo": 2, "kd": 8}
"""fp32 numbers for each logit when a chunk's gradient is taken, beside the logits and their
gradients: log-softmax and its input; with a teacher, of both models under a temperature too."""
WIDE_OF_TRAINED = 3
"""The same where pairs train the head: log-softmax, its gradient and the loss's."""
COMPLEX = 8
"""Bytes of a rotary embedding's turn: two numbers in fp32."""
UNFUSED = 1.5
"""What torchtune's own layers keep, as a multiple of what `tune/gradients.py` does. Measured."""
WIDE = 4
"""Bytes of a number in fp32."""
LONG = 8
"""Bytes of an index: what NF4 is looked up with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The largest forward pass of a process."""

    tokens: int
    """Computed: padding included, beginnings that rows share once."""
    cells: int
    """In attention, where each row is whole and padded to its group's longest."""
    labels: int
    """Tokens that a loss is computed for."""
    passes: int = 1
    """Forward passes of a step."""
    row: int = 0
    """Tokens of a row, in the mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Switches:
    """What else of a recipe decides on memory."""

    window: int | None
    """Tokens of a forward pass; None pads rows."""
    fused: bool = True
    """Layers have their gradients written out."""
    checkpointing: bool = False
    """Activations of a layer are computed again for its gradient."""
    moments: int = 2
    """Numbers that the optimizer keeps for each trained one."""
    frozen_dtype: str | None = None
    """Number format of the weights that an adapter is trained beside, where it is another one."""
    second_dtype: str | None = None
    """Number format of a teacher, where it is another one."""
    chunked: bool = True
    """Logits exist a chunk at a time, and only where there is a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """A decoder's dimensions."""

    layers: int
    hidden: int
    inner: int
    queries: int
    """Heads times head_dim."""
    keys: int
    heads: int
    head_dim: int
    vocab: int
    matrices: int
    """Numbers in the matrices of all layers."""
    largest: int
    """Numbers in the largest of them."""


def sizes_of(model: Model) -> Sizes:
    """Dimensions of a model, from the shapes on its card."""
    return _sizes(tuple(model.tensors.items()), int(model.arguments["num_heads"]))


@functools.lru_cache(maxsize=64)
def _sizes(shapes: tuple[tuple[str, Shape], ...], heads: int) -> Sizes:
    tensors = dict(shapes)
    first = {
        name.removeprefix("model.layers.0."): shape
        for name, shape in shapes
        if name.startswith("model.layers.0.")
    }
    vocab, hidden = tensors["model.embed_tokens.weight"]
    matrices = [prod(shape) for shape in linear_weights(tensors).values()]
    queries = first["self_attn.o_proj.weight"][1]
    fused = first.get("self_attn.qkv_proj.weight")
    keys = (fused[0] - queries) // 2 if fused else first["self_attn.k_proj.weight"][0]
    return Sizes(
        layers=sum(name.endswith(".self_attn.o_proj.weight") for name in tensors),
        hidden=hidden,
        inner=first["mlp.down_proj.weight"][1],
        queries=queries,
        keys=keys,
        heads=heads,
        head_dim=queries // heads,
        vocab=vocab,
        matrices=sum(matrices),
        largest=max(matrices),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One forward and backward pass of a model that is trained."""

    settings: Settings
    model: Model
    dtype: str
    cpu: bool
    slow_in_bf16: bool
    load: Load
    switches: Switches

    @property
    def element(self) -> int:
        """Bytes of a number."""
        return BYTES_PER_ELEMENT[self.dtype]

    @property
    def sizes(self) -> Sizes:
        return sizes_of(self.model)

    @property
    def written_out(self) -> bool:
        """Whether attention is `tune.attention`'s own, which keeps only its inputs; in fp32 for
        short rows alone, so the larger of both ways is counted there."""
        return self.cpu and self.switches.window is not None

    @property
    def fused(self) -> bool:
        """Whether feed-forward layers keep only what their written-out gradient needs."""
        return self.switches.fused and is_written_out(self.settings)

    @property
    def widened(self) -> bool:
        """Whether bf16 is computed in fp32, where `tune/` writes operations out."""
        return self.slow_in_bf16 and self.dtype == "bf16"

    def kept(self) -> int:
        """Of all layers, for the gradient."""
        sizes, load = self.sizes, self.load
        if self.switches.checkpointing:
            inputs = sizes.layers * load.tokens * sizes.hidden * self.element
            # the layer is computed again, and its gradient, before the one before it is
            return inputs + 2 * self.of_layer()
        return sizes.layers * self.of_layer()

    def of_layer(self) -> int:
        """Of one layer, for the gradient."""
        sizes, load, element = self.sizes, self.load, self.element
        traits = TRAITS[self.settings.method]
        targets = self.settings.lora_targets or LORA_TARGETS
        # residual and normed inputs of attention and MLP; what goes into the output projection
        numbers = 4 * sizes.hidden + sizes.queries
        numbers += (2 if self.fused else 4) * sizes.inner
        if traits.adapter and not traits.fake_quantized:
            rank = self.settings.lora_rank or LORA_RANK
            numbers += rank * (3 * ("attention" in targets) + 3 * ("mlp" in targets))
        if traits.magnitudes:
            # both parts of each adapted projection's result, for the gradient of its magnitude
            numbers += 2 * (sizes.queries + sizes.keys + sizes.hidden) * ("attention" in targets)
            numbers += 2 * (2 * sizes.inner + sizes.hidden) * ("mlp" in targets)
        bytes_of_token = numbers * element + COMPLEX * sizes.head_dim
        found = load.tokens * bytes_of_token
        ways = []
        if self.written_out:
            seen = load.row if load.row <= KEPT_PROBABILITIES else 0
            ways.append((sizes.queries + 2 * sizes.keys + sizes.heads * seen) * element)
        if not self.written_out or self.dtype == "fp32":
            ways.append(4 * sizes.queries * element + 4 * sizes.heads)
        found += load.cells * max(ways)
        if not self.switches.fused:
            found = int(found * UNFUSED)
        return found + (self.of_rounding() if traits.fake_quantized else 0)

    def of_rounding(self) -> int:
        """Of one layer, for weights and inputs that are rounded: two numbers of each on the way,
        and whether they were within the range."""
        matrices = self.sizes.matrices // self.sizes.layers
        inputs = 3 * self.sizes.hidden + self.sizes.queries + self.sizes.inner
        return (matrices + self.load.tokens * inputs) * (2 * self.element + 2)

    def workspace(self) -> int:
        """Of one layer, while its gradient is computed."""
        sizes, load, element = self.sizes, self.load, self.element
        traits = TRAITS[self.settings.method]
        mlp = load.tokens * (4 * sizes.inner + 2 * sizes.hidden) * element
        if self.widened and self.fused:
            mlp = load.tokens * (6 * sizes.inner + 3 * sizes.hidden) * WIDE
        beside = WIDE if self.widened and self.written_out else element
        attention = load.cells * 7 * sizes.queries * beside
        if self.written_out:
            attention += load.cells * sizes.heads * ATTENTION_BLOCK * 3 * beside
        largest = sizes.largest
        if traits.nf4 and nf4_blocks(largest):
            mlp += largest * (LONG + 4 * element)
        if traits.magnitudes:
            mlp += largest * 4 * element
        if traits.fake_quantized:
            mlp += largest * 5 * max(element, 4)
        return max(mlp, attention)

    def logits(self, teacher: Model | None) -> int:
        """Of the chunk that is computed, or of all tokens, with hidden states and their gradients
        where there are labels."""
        sizes, load = self.sizes, self.load
        rows = load.tokens
        if self.switches.chunked:
            rows = -(-load.labels // -(-load.labels // CHUNK))
        objective = self.settings.objective
        wide = WIDE_LOGITS[objective]
        narrow = 1 if self.switches.chunked else 2
        wide_head = self.widened and self.switches.fused and self.switches.chunked
        if objective == "dpo" and not TRAITS[self.settings.method].adapter:
            wide, narrow = WIDE_OF_TRAINED - wide_head, 2 - wide_head
        elif self.cpu and self.switches.chunked:
            wide = 0  # a few tokens at a time
        # logits, whose gradients may take their place, of both models where there are two
        narrow += teacher is not None
        of_logit = WIDE if wide_head else self.element
        found = rows * sizes.vocab * (narrow * of_logit + WIDE * wide)
        hidden = 2 * load.labels * sizes.hidden * self.element
        if teacher is not None:
            hidden += load.labels * sizes_of(teacher).hidden * self.element
        return found + hidden + self.of_head()

    def of_head(self) -> int:
        """Gradients of an output head that is trained: of a chunk, and their sum so far."""
        if TRAITS[self.settings.method].adapter:
            return 0
        return 2 * self.sizes.vocab * self.sizes.hidden * self.element

    def after(self) -> int:
        """Beside the gradients, when the last of them are computed."""
        return self.of_head() + self.load.tokens * self.sizes.hidden * self.element

    def gathered(self, processes: int) -> int:
        """Weights of a layer, the one that follows and the embedding, whole for a while."""
        if processes == 1:
            return 0
        sizes = self.sizes
        matrices = sizes.matrices // sizes.layers
        return (2 * matrices + 2 * sizes.vocab * sizes.hidden) * self.element
