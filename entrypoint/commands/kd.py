"""`train kd`."""

from typing import Any, get_args

import click

from entrypoint.commands.training import run, training_options
from entrypoint.options import DEFAULTS, option
from entrypoint.parameters import ABOVE_ZERO, Number
from entrypoint.settings import EMBEDDED, Divergence

teacher = option(
    "--teacher",
    default=EMBEDDED,
    show_default=True,
    metavar="REF",
    help="The model to learn from, as --model names one; with the same vocabulary.",
)
alpha = option(
    "--alpha",
    type=Number(min=0, max=1),
    default=DEFAULTS["alpha"],
    show_default=True,
    help="Share of the teacher in the loss; the rest is the answers'.",
)
temperature = option(
    "--temperature",
    type=ABOVE_ZERO,
    default=DEFAULTS["temperature"],
    show_default=True,
    help="More than 1 smooths the probabilities that are compared.",
)
kl = option(
    "--kl",
    type=click.Choice(get_args(Divergence)),
    default=DEFAULTS["kl"],
    show_default=True,
    help="forward: likely where the teacher says likely; reverse: unlikely where it says unlikely.",
)


@click.command()
@training_options(teacher, alpha, temperature, kl)
def kd(**given: Any) -> None:
    """Teach a small model with rows and with what a larger one makes of them.

    The loss is alpha x T^2 x KL divergence from the teacher's probabilities + (1 - alpha) x
    cross-entropy of the answers. Rows are those of `train sft`. Without arguments the built-in
    model is its own teacher: it learns the answers and is held near to what it was.
    """
    run("kd", given)
