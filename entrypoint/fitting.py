"""Which methods and settings fit a machine, the cheapest first. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, get_args

from entrypoint.activations import Switches
from entrypoint.errors import SettingsError
from entrypoint.estimate import Asked, Estimate, Speed, estimate
from entrypoint.machines import Machine
from entrypoint.methods import ADAPTER_OPTIONS, TRAITS, check
from entrypoint.settings import Method, Settings

WINDOW_STEP = 64
"""Tokens that a smaller window is a multiple of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One way to run what is asked for."""

    options: tuple[str, ...]
    """What to add to the command."""
    found: Estimate


def choices(
    asked: Asked,
    machine: Machine,
    *,
    dtype: str,
    processes: int,
    nodes: int = 1,
    speed: Speed | None = None,
    price: float | None = None,
    methods: tuple[Method, ...] = get_args(Method),
) -> list[Choice]:
    """For each method that can be asked for the cheapest settings that fit, cheapest method first.

    Cheap is what costs little where a price is known, or takes little time, or little arithmetic.
    Of settings that cost the same, those that take less memory come first.
    """
    found = []
    for method in methods:
        settings = as_method(asked.settings, method)
        try:
            check(settings, asked.model)
        except SettingsError:
            continue
        fitting = []
        for options, settings_now, switches in variations(asked, settings):
            made = estimate(
                replace(asked, settings=settings_now, switches=switches),
                machine,
                dtype=dtype,
                processes=processes,
                nodes=nodes,
                speed=speed,
                price=price,
            )
            if made.fits:
                fitting.append(Choice(options=options, found=made))
        found += sorted(fitting, key=expense)[:1]
    return sorted(found, key=expense)


def expense(choice: Choice) -> tuple[float, int, int]:
    """What choices are ordered by."""
    found = choice.found
    cost = found.cost if found.cost is not None else found.seconds
    return found.work if cost is None else cost, len(choice.options), found.footprint.total


def as_method(settings: Settings, method: Method) -> Settings:
    """The settings with a method. What shapes an adapter goes where there is none, unless it was
    asked for."""
    if TRAITS[method].adapter:
        return replace(settings, method=method)
    fields = Settings.__dataclass_fields__
    idle = set(ADAPTER_OPTIONS) - set(settings.explicit)
    defaults: dict[str, Any] = {name: fields[name].default for name in idle}
    return replace(settings, method=method, **defaults)


def variations(
    asked: Asked, settings: Settings
) -> Iterator[tuple[tuple[str, ...], Settings, Switches]]:
    """Settings that learn the same in less memory, with the options that ask for them."""
    windows = [asked.switches.window]
    smallest = -(-asked.lengths.longest // WINDOW_STEP) * WINDOW_STEP
    if windows[0] is None or smallest < windows[0]:
        windows.append(smallest)
    copies = settings.objective == "dpo" and not TRAITS[settings.method].adapter
    computed = {settings.precompute_reference, settings.precompute_reference or copies}
    for window, again, once in product(
        windows, {asked.switches.checkpointing, True}, sorted(computed)
    ):
        options = ["--method", settings.method]
        if again != asked.switches.checkpointing:
            options += ["--set", "enable_activation_checkpointing=true"]
        if window != asked.switches.window:
            options += ["--set", f"packing_window={window}"]
        if once != settings.precompute_reference:
            options += ["--precompute-reference"]
        yield (
            tuple(options),
            replace(settings, precompute_reference=once),
            replace(asked.switches, window=window, checkpointing=again),
        )
