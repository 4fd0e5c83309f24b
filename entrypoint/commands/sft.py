"""`train sft`."""

from typing import Any

import click

from entrypoint.commands.training import run, training_options


@click.command()
@training_options()
def sft(**given: Any) -> None:
    """Fine-tune a model on rows with answers.

    Rows are chat messages, or instruction (and input) with output, or prompt with completion.
    With --then eval,quantize the base and the tuned model are compared and a quantized copy is
    made; with --then quantize,eval the copy is scored too.
    """
    run("sft", given)
