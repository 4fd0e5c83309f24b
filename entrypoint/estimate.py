"""What a run takes: memory of each process, arithmetic, tokens, time and cost. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from entrypoint.activations import Load, Switches, sizes_of
from entrypoint.data.lengths import Lengths, Steps, steps_of
from entrypoint.errors import SettingsError
from entrypoint.machines import Machine
from entrypoint.memory import Footprint, footprint
from entrypoint.methods import LORA_RANK, TRAITS, trained_parameters
from entrypoint.models.card import BYTES_PER_ELEMENT, Model
from entrypoint.settings import Settings

MOMENTS = {"AdamW": 2, "Adam": 2, "SGD": 0, "Adagrad": 1, "RMSprop": 1}
"""Numbers that torch's optimizers keep for each trained one."""
TORCHTUNES_OWN_LOSS = "torchtune."
UTILIZATION = 0.35
"""Share of a GPU's peak that training is taken to reach, where no speed is known."""
HOUR = 3600
UNPACKING_TOKENS = 64
"""Tokens that a weight is multiplied with in the time that unpacking it from NF4 takes, about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A run whose plan is made: what an estimate is of."""

    settings: Settings
    model: Model
    teacher: Model | None
    lengths: Lengths
    switches: Switches
    steps: int
    epochs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How fast a device is taken to be."""

    flops: float | None
    """FLOP/s of each process; None for unknown."""
    known_by: str
    """In words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a run takes on one kind of machine."""

    machine: Machine
    nodes: int
    processes: int
    """Of a node."""
    dtype: str
    asked: Asked
    footprint: Footprint
    there: int | None
    """Bytes that each process has; None for unknown."""
    work: float
    """Floating-point operations of all processes together."""
    tokens: int
    """That exist, padding not counted; over all steps."""
    seconds: float | None
    known_by: str
    """Where the speed is from."""
    price: float | None
    """Of a node's hour."""

    @property
    def fits(self) -> bool | None:
        """Whether memory is enough; None when it is not known what there is."""
        return None if self.there is None else self.footprint.total <= self.there

    @property
    def cost(self) -> float | None:
        if self.price is None or self.seconds is None:
            return None
        return self.price * self.nodes * self.seconds / HOUR


def switches_of(recipe: str) -> Switches:
    """What a rendered recipe says beside the plan that decides on memory.

    Raises:
        SettingsError: it names no optimizer, no loss or an unknown number format.
    """
    found: Any = OmegaConf.create(recipe)
    optimizer = _component(found, "optimizer").rpartition(".")[2]
    return Switches(
        window=found.get("packing_window"),
        fused=bool(found.get("fused_layers")),
        checkpointing=bool(found.get("enable_activation_checkpointing")),
        moments=MOMENTS.get(optimizer, 2),
        frozen_dtype=_number_format(found, "frozen_dtype"),
        second_dtype=_number_format(found, "teacher_dtype"),
        chunked=found.get("objective", "sft") == "dpo"
        or not _component(found, "loss").startswith(TORCHTUNES_OWN_LOSS),
    )


def _number_format(recipe: Any, key: str) -> str | None:
    named = recipe.get(key)
    if named not in (None, *BYTES_PER_ELEMENT):
        raise SettingsError(
            f"there is no number format {named}",
            where=f"--set {key}",
            hint=" or ".join(BYTES_PER_ELEMENT),
        )
    return None if named is None else str(named)


def _component(recipe: Any, key: str) -> str:
    path = f"{key}._component_"
    named = OmegaConf.select(recipe, path)
    if not named:
        raise SettingsError(f"the recipe has no {path}", where=f"--set {key}, or the template")
    return str(named)


def estimate(
    asked: Asked,
    machine: Machine,
    *,
    dtype: str,
    processes: int,
    nodes: int = 1,
    speed: Speed | None = None,
    price: float | None = None,
) -> Estimate:
    """What a run takes on machines of a kind.

    Args:
        processes: of a node; on GPUs each has one.
        speed: None takes UTILIZATION of the machine's peak.
        price: of a node's hour, in any currency.
    """
    settings, switches = asked.settings, asked.switches
    ranks = processes * nodes
    steps = steps_of(asked.lengths, settings.batch_size, switches.window)
    found = footprint(
        settings,
        asked.model,
        asked.teacher,
        device=machine.device,
        dtype=dtype,
        processes=ranks,
        load=Load(
            tokens=steps.tokens,
            cells=steps.cells,
            labels=steps.labels,
            passes=steps.passes,
            row=int(steps.mean_row),
        ),
        switches=switches,
        slow_in_bf16=machine.slow_in_bf16,
        build=machine.build,
    )
    there = machine.memory
    if there is not None and machine.device == "cpu":
        there //= processes
    speed = speed or speed_of(machine, dtype)
    work = asked.steps * work_of_step(asked, steps)
    return Estimate(
        machine=machine,
        nodes=nodes,
        processes=processes,
        dtype=dtype,
        asked=asked,
        footprint=found,
        there=there,
        work=work * ranks,
        tokens=int(asked.steps * steps.mean_tokens) * ranks,
        seconds=work / speed.flops if speed.flops else None,
        known_by=speed.known_by,
        price=price,
    )


def speed_of(machine: Machine, dtype: str, utilization: float = UTILIZATION) -> Speed:
    """A share of the machine's peak."""
    peak = machine.peaks.get(dtype)
    if peak is None:
        return Speed(flops=None, known_by="unknown")
    said = f"{utilization:.0%} of {peak / 1e12:,.0f} TFLOP/s"
    return Speed(flops=peak * utilization, known_by=said)


def speed_by_tokens(asked: Asked, tokens_per_second: float, ranks: int, known_by: str) -> Speed:
    """The speed at which all processes together go through so many tokens a second."""
    steps = steps_of(asked.lengths, asked.settings.batch_size, asked.switches.window)
    of_token = work_of_step(asked, steps) / steps.mean_tokens
    return Speed(flops=tokens_per_second * of_token / ranks, known_by=known_by)


def work_of_step(asked: Asked, steps: Steps) -> float:
    """Floating-point operations of a process's step: two for each weight and token, as often as
    the weights are passed through.

    The gradient of what a layer takes is a pass, and that of its weights another one, which frozen
    weights save (QLoRA, https://arxiv.org/abs/2305.14314).
    """
    settings, model = asked.settings, asked.model
    traits = TRAITS[settings.method]
    forward = work_of_forward(model, steps)
    passes = 2.0 if traits.adapter and not traits.fake_quantized else 3.0
    if asked.switches.checkpointing:
        passes += 1
    work = passes * forward
    work += passes * 2 * sizes_of(model).matrices * steps.passes * tokens_of_method(settings)
    if traits.adapter:
        work += 6 * trained_parameters(settings, model) * steps.mean_computed
    if settings.objective == "dpo":
        # once for each pair, or once for each pair and epoch
        work += forward / (asked.epochs if settings.precompute_reference else 1)
    if settings.objective == "kd":
        # the teacher is asked, be it the student's own base or a model beside it
        work += work_of_forward(asked.teacher or model, steps)
    return work


def tokens_of_method(settings: Settings) -> int:
    """What a method does to each weight in a pass, as so many tokens more."""
    traits = TRAITS[settings.method]
    rank = settings.lora_rank or LORA_RANK
    return UNPACKING_TOKENS * traits.nf4 + rank * traits.magnitudes


def work_of_forward(model: Model, steps: Steps) -> float:
    """Floating-point operations of a step's forward passes."""
    sizes = sizes_of(model)
    # scores and weighted values, of the half that is not in the future
    attention = 2 * sizes.layers * sizes.queries * steps.mean_row * steps.mean_tokens
    head = 2 * sizes.vocab * sizes.hidden * steps.mean_labels
    return 2 * sizes.matrices * steps.mean_computed + attention + head


def as_dict(found: Estimate) -> Mapping[str, Any]:
    """Plain values, for JSON."""
    return {
        "machine": found.machine.name,
        "nodes": found.nodes,
        "processes_per_node": found.processes,
        "dtype": found.dtype,
        "method": found.asked.settings.method,
        "memory_bytes": found.footprint.as_dict(),
        "memory_there_bytes": found.there,
        "fits": found.fits,
        "steps": found.asked.steps,
        "tokens": found.tokens,
        "flops": found.work,
        "seconds": found.seconds,
        "speed_known_by": found.known_by,
        "cost": found.cost,
    }
