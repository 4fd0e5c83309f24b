"""`train plan`."""

import os
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from entrypoint.commands.dpo import beta, label_smoothing, precompute_reference, preference_loss
from entrypoint.commands.kd import alpha, kl, teacher, temperature
from entrypoint.commands.training import explicit, training_options
from entrypoint.options import option
from entrypoint.parameters import ABOVE_ZERO, POSITIVE, CommaList, Number
from entrypoint.settings import Objective, Settings, foreign

QUESTION = ("on", "nodes", "price", "tokens_per_second", "like", "utilization")
SPEED = ("tokens_per_second", "like", "utilization")
TYPED = (ParameterSource.COMMANDLINE,)


@click.command()
@click.argument("objective", type=click.Choice(get_args(Objective)), default="sft")
@option(
    "--on",
    type=CommaList(),
    default="this",
    show_default=True,
    help="Machines: this, a GPU (A100-80GB; --nproc-per-node says how many), a VM size of Azure, "
    "or all of gpus or azure.",
)
@option("--nodes", type=POSITIVE, default=1, show_default=True, help="How many of them.")
@option("--price", type=ABOVE_ZERO, help="Of one machine's hour, in any currency.")
@option(
    "--tokens-per-second",
    type=ABOVE_ZERO,
    help="Speed of all processes together, as metrics.jsonl has it.",
)
@option(
    "--like",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="RUN",
    help="A run folder: its speed is taken.",
)
@option(
    "--utilization",
    type=Number(min=0, max=1, min_open=True),
    metavar="SHARE",
    help="Share of the peak of a GPU that training reaches, where no speed is given.  "
    "[default: 0.35]",
)
@training_options(
    preference_loss, beta, label_smoothing, precompute_reference, teacher, alpha, temperature, kl
)
def plan(objective: Objective, **given: Any) -> None:
    """Say what a run takes: memory by part, steps, tokens, time and cost, and what would fit.

    OBJECTIVE is sft, dpo or kd; the options are those of its command. Models that `train models`
    lists need no network. The exit code is 6 when nothing fits. With --method only that method is
    looked at.
    """
    from entrypoint import planning
    from entrypoint.results import telling

    asked = {name: given.pop(name) for name in QUESTION}
    as_json = given.pop("as_json")
    # a variable may be there for another command
    if idle := foreign(objective) & set(explicit(given, TYPED)):
        option_name = min(idle).replace("_", "-")
        raise click.UsageError(f"--{option_name} means nothing to {objective}.")
    if len(told_twice := [name for name in SPEED if asked[name] is not None]) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in told_twice)
        raise click.UsageError(f"{options} both say how fast it is.")
    settings = Settings(objective=objective, explicit=explicit(given), **given)
    with telling(as_json) as told:
        planning.plan_one(settings, planning.Question(**asked), os.environ, told)
