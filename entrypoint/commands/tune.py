"""`train tune`."""

import os
from collections.abc import Mapping

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="ARGUMENTS…")
def tune(arguments: tuple[str, ...]) -> None:
    """Run torchtune's own command line: its recipes and configurations.

    \b
      train tune ls
      train tune cp llama3_2/1B_lora_single_device mine.yaml
      train tune run lora_finetune_single_device --config mine.yaml device=cpu
      train tune run --nproc_per_node 2 lora_finetune_distributed --config mine.yaml

    All that follows `tune` goes to torchtune as it is; `train tune run --help` is its help. Recipes
    run as those of `train sft` do: with the same versions, allocator and settings, on a CPU too,
    and secrets hidden in what they print. They make no run folder.
    """
    from entrypoint import stock, zero_first

    def work(environ: Mapping[str, str]) -> None:
        stock.tune(arguments, environ)

    zero_first.once(work, os.environ)
