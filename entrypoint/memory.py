"""How much memory training takes on each device, part by part. Pure arithmetic: no torch.

The parts are what `tune/` holds at the same time: weights, what is trained with its gradients and
AdamW's moments, and `activations.Pass`. `make bench-plan` holds the sum against measured peaks.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import prod

from entrypoint.activations import Load, Pass, Switches, sizes_of
from entrypoint.hardware import Build
from entrypoint.methods import (
    NF4_BYTES,
    TRAITS,
    adapted_weights,
    is_written_out,
    linear_weights,
    nf4_blocks,
    trained_parameters,
)
from entrypoint.models.card import BYTES_PER_ELEMENT, Model
from entrypoint.objectives import second_model
from entrypoint.settings import Settings

OVER, UNDER = 1.25, 0.95
"""Bounds of the sum as a share of the measured peak, held by tests."""

IMPORTED_BYTES: Mapping[Build, int] = {"cpu": 468 * 10**6, "cuda": 924 * 10**6}
"""Of a CPU process that has imported torch and all else, and built nothing, by what torch was built
for: CUDA's libraries are loaded where there is no GPU too. Measured: 454 MB in an environment in
use and 484 MB in one just installed, with the same peak of a run. The two builds differ by 456 MB,
as measured when the first took 437."""
PROCESS_BYTES, TOKEN_BYTES = 64 * 10**6, 600
"""Of a CPU process beyond its imports: code that is loaded when it is first used, buffers of the
libraries; and the tokenizer, for each entry of the vocabulary. The first is what 532 MB, measured
of both together, leave beside the imports."""
CUDA_BYTES = 600 * 10**6
"""Of a process on a GPU: CUDA's context and cuBLAS's workspace."""
FRAGMENTED = {"cpu": 0.3, "cuda": 0.05, "mps": 0.05}
"""Share of what comes and goes in a step that the allocator holds beside it."""
FRAGMENTED_WIDENED = 0.6
"""The same where bf16 is computed in fp32: holes of the one do not fit the other."""
REUSED = 0.35
"""Share of the room of activations that gradients of trained weights do not fit into again, with
glibc's allocator."""
UNEVEN = 0.1
"""The same of passes of different sizes that follow one another."""
PACKING_NUMBERS = 32
"""For each number of a matrix while torchao looks for its nearest of the 16 of NF4: differences and
their absolute values."""
UNPACKING_BYTES = 70
"""For each number of a matrix while weights in NF4 become whole again. Measured; the same run takes
a tenth more now and then on a busy machine, and this is between the two."""
LOADED = 0.5
"""Share of a process's own memory that it has when it loads weights."""
FILE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes on each device when a process holds the most."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    second: int
    """Weights of a reference or teacher."""
    gather: int
    """Weights of other processes while a layer is computed (FSDP)."""
    fragmentation: int
    """What the allocator holds and cannot use."""
    process: int
    """Libraries, their buffers and the tokenizer; CUDA's context."""
    files: int = 0
    """What loading or saving takes more than a step does, where weights are in the machine's
    memory."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def state(self) -> int:
        """What there is whatever the rows are."""
        return self.weights + self.adapters + self.gradients + self.optimizer + self.second

    @property
    def least(self) -> int:
        """With less a run cannot do, as sure as the estimate is."""
        return int(self.total / OVER)

    def as_dict(self) -> dict[str, int]:
        """Bytes by part, and their sum."""
        return {**asdict(self), "total": self.total}


def footprint(
    settings: Settings,
    model: Model,
    teacher: Model | None,
    *,
    device: str,
    dtype: str,
    processes: int,
    load: Load,
    switches: Switches,
    slow_in_bf16: bool = False,
    build: Build = "cpu",
) -> Footprint:
    """Memory of one process of a run.

    Args:
        device: `cpu`, `cuda` or `mps`.
        dtype: number format of weights and activations, a key of BYTES_PER_ELEMENT.
        processes: that the weights are divided among (FSDP2).
        slow_in_bf16: whether the machine computes bf16 in fp32.
        build: what torch was built for, which matters on a CPU.
    """
    element, traits = BYTES_PER_ELEMENT[dtype], TRAITS[settings.method]
    # hidden states are in the format of the weights
    wide = traits.adapter and is_written_out(settings)
    frozen_dtype = (wide and switches.frozen_dtype) or dtype
    frozen = frozen_bytes(settings, model, BYTES_PER_ELEMENT[frozen_dtype])
    cpu = device == "cpu"
    trained = trained_parameters(settings, model) * element
    second, second_size = second_model(settings, model, teacher), element
    if settings.objective == "kd":
        second_size = BYTES_PER_ELEMENT[switches.second_dtype or dtype]
    second_bytes = second.parameters * second_size if second else 0
    work = Pass(
        settings=settings,
        model=model,
        dtype=frozen_dtype,
        cpu=cpu,
        slow_in_bf16=slow_in_bf16,
        load=load,
        switches=switches,
    )
    gradients, logits = trained // processes, work.logits(teacher)
    passing = work.kept() + work.workspace()
    # the first pass of a step meets no gradients yet
    forward = passing + logits + (gradients if load.passes > 1 else 0)
    backward = gradients + work.after()
    beyond = max(forward, backward) - gradients
    gathered = work.gathered(processes)
    share = FRAGMENTED_WIDENED if work.widened else FRAGMENTED[device]
    lost = share * (passing + logits + gathered)
    if cpu:
        lost += REUSED * min(gradients, passing) + UNEVEN * passing * (load.passes > 1)
    parts = Footprint(
        weights=(frozen if traits.adapter else trained) // processes,
        adapters=gradients if traits.adapter else 0,
        gradients=gradients,
        optimizer=switches.moments * gradients,
        activations=max(0, beyond - logits),
        logits=min(logits, beyond),
        second=second_bytes // processes,
        gather=gathered,
        fragmentation=int(lost),
        process=process_bytes(model, build) if cpu else CUDA_BYTES,
    )
    if not cpu:
        return parts
    idle = IMPORTED_BYTES[build]
    own = parts.process - idle
    loading = max(
        loading_bytes(settings, model, element),
        parts.weights
        + parts.adapters
        + second_bytes
        + (read_bytes(second, second_size) if second else 0),
    )
    most = max(
        loading + int(LOADED * own),
        saving_bytes(settings, model, element) + own,
    )
    return replace(parts, files=max(0, idle + most - parts.total))


def frozen_bytes(settings: Settings, model: Model, element: int) -> int:
    """Weights that an adapter is trained beside."""
    in_nf4 = 0
    if TRAITS[settings.method].nf4:
        in_nf4 = sum(
            prod(shape)
            for shape in linear_weights(model.tensors).values()
            if nf4_blocks(prod(shape))
        )
    return (model.parameters - in_nf4) * element + int(in_nf4 * NF4_BYTES)


def process_bytes(model: Model, build: Build) -> int:
    """What a CPU process takes, whatever it trains."""
    of_tokens = TOKEN_BYTES * model.tensors["model.embed_tokens.weight"][0]
    return IMPORTED_BYTES[build] + PROCESS_BYTES + of_tokens


def loading_bytes(settings: Settings, model: Model, element: int) -> int:
    """The model as built, in the run's number format, and the files of its weights; after them,
    what NF4 is made with."""
    traits = TRAITS[settings.method]
    trained = trained_parameters(settings, model) * element * traits.adapter
    beside = read_bytes(model, element)
    if traits.nf4:
        beside = max(beside, PACKING_NUMBERS * element * sizes_of(model).largest)
    return model.parameters * element + trained + beside


def read_bytes(model: Model, element: int) -> int:
    """Files of weights, of which q and k are put into another order."""
    moved = sum(
        prod(shape)
        for name, shape in model.tensors.items()
        if name.endswith((".q_proj.weight", ".k_proj.weight"))
    )
    return (model.parameters + moved) * FILE_BYTES.get(model.dtype or "", element)


def saving_bytes(settings: Settings, model: Model, element: int) -> int:
    """Weights and optimizer, and the merged copies of adapted weights; NF4's are whole again."""
    traits = TRAITS[settings.method]
    trained = trained_parameters(settings, model) * element
    if not traits.adapter:
        return 3 * trained
    merged = sum(map(prod, adapted_weights(settings, model).values())) * element
    whole = 0
    if traits.nf4:
        whole = model.parameters * element + UNPACKING_BYTES * sizes_of(model).largest
    return frozen_bytes(settings, model, element) + 3 * trained + merged + whole
