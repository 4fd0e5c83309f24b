"""`train chat`."""

import os
from typing import Any

import click

from entrypoint import options
from entrypoint.commands import asking
from entrypoint.parameters import POSITIVE, Number


@click.command()
@options.checkpoint
@asking.base
@options.option("--prompt", metavar="TEXT", help="Print the answer to this, and nothing else.")
@options.option("--system", metavar="TEXT", help="What the model is told before you speak.")
@options.option(
    "--compare", is_flag=True, help="Show the answers of the base and the tuned model side by side."
)
@options.option(
    "--max-new-tokens",
    command="chat",
    type=POSITIVE,
    default=512,
    show_default=True,
    metavar="TOKENS",
    help="Longest answer.",
)
@options.option(
    "--temperature",
    command="chat",
    type=Number(min=0),
    default=0.0,
    show_default=True,
    help="How freely words are drawn; 0 takes the likeliest each time.",
)
@options.seed
@options.device
@options.dtype
@options.as_json
def chat(model: str, as_json: bool, **asked: Any) -> None:
    """Talk to a model in the terminal.

    The model is a base, tuned or quantized one, or a PEFT adapter. Answers appear as they are
    written. /exit or Ctrl-D ends, Ctrl-C ends an answer.
    """
    from entrypoint import chatting
    from entrypoint.results import telling

    if as_json and asked["prompt"] is None:
        raise click.UsageError("--json is for one answer: give --prompt")
    with telling(as_json) as told:
        chatting.chat(model, chatting.Asked(**asked), os.environ, told)
