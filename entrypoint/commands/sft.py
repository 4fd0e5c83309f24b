"""`train sft`."""

import os
from typing import Any

import click

from entrypoint import options
from entrypoint.settings import Settings


@click.command()
@options.model
@options.data
@options.method
@options.lora_rank
@options.lora_alpha
@options.lora_dropout
@options.lora_targets
@options.output
@options.epochs
@options.max_steps
@options.batch_size
@options.lr
@options.max_seq_len
@options.save_every
@options.keep
@options.resume
@options.grace
@options.eval_every
@options.early_stop
@options.log_to
@options.seed
@options.overrides
@options.recipe
@options.then
@options.tasks
@options.tasks_folder
@options.limit
@options.nproc_per_node
@options.shared_storage
@options.device
@options.dtype
@options.dry_run
def sft(**given: Any) -> None:
    """Fine-tune a model on rows with answers.

    Rows are chat messages, or instruction (and input) with output, or prompt with completion.
    With --then eval,quantize the base and the tuned model are compared and a quantized copy is
    made; with --then quantize,eval the copy is scored too.
    """
    from entrypoint import pipeline

    pipeline.fine_tune(Settings(objective="sft", **given), os.environ)
