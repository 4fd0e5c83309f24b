"""`train dpo`."""

from typing import Any, get_args

import click

from entrypoint.commands.training import run, training_options
from entrypoint.options import DEFAULTS, option
from entrypoint.parameters import ABOVE_ZERO, Number
from entrypoint.settings import PreferenceLoss

preference_loss = option(
    "--loss",
    type=click.Choice(get_args(PreferenceLoss)),
    default=DEFAULTS["loss"],
    show_default=True,
    help="DPO's own, IPO's square, or RSO's hinge.",
)
beta = option(
    "--beta",
    type=ABOVE_ZERO,
    default=DEFAULTS["beta"],
    show_default=True,
    help="How strongly the model is held near to what it was.",
)
label_smoothing = option(
    "--label-smoothing",
    type=Number(min=0, max=0.5, max_open=True),
    default=DEFAULTS["label_smoothing"],
    show_default=True,
    metavar="SHARE",
    help="Pairs that are taken to be the wrong way round; for the sigmoid loss.",
)
precompute_reference = option(
    "--precompute-reference",
    is_flag=True,
    help="Ask the model before training once about all pairs, and not anew at each step.",
)


@click.command()
@training_options(preference_loss, beta, label_smoothing, precompute_reference)
def dpo(**given: Any) -> None:
    """Fine-tune a model on pairs of a better and a worse answer.

    Rows have a prompt, a chosen and a rejected answer. The model learns to find the chosen answer
    likelier than the rejected one, beyond what it did before training (direct preference
    optimization).
    """
    run("dpo", given)
