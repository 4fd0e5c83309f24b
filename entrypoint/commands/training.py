"""What the commands that fine-tune have in common: options, and the way to the pipeline."""

import functools
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from entrypoint import options
from entrypoint.options import Decorator
from entrypoint.settings import Objective, Settings

GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
ROWS = (options.model, options.data)
RUN = (
    options.preset,
    options.method,
    options.lora_rank,
    options.lora_alpha,
    options.lora_dropout,
    options.lora_targets,
    options.output,
    options.epochs,
    options.max_steps,
    options.batch_size,
    options.lr,
    options.max_seq_len,
    options.log_every,
    options.save_every,
    options.keep,
    options.resume,
    options.grace,
    options.eval_every,
    options.early_stop,
    options.log_to,
    options.seed,
    options.overrides,
    options.recipe,
    options.then,
    options.quantize_methods,
    options.tasks,
    options.tasks_folder,
    options.limit,
    options.gates,
    options.nproc_per_node,
    options.shared_storage,
    options.device,
    options.dtype,
    options.fit_check,
    options.dry_run,
    options.as_json,
)


def training_options(*own: Decorator[Any]) -> Decorator[Any]:
    """The options of a command that fine-tunes, with those of its objective behind the data's."""
    every = (*ROWS, *own, *RUN)
    return lambda command: functools.reduce(lambda made, add: add(made), reversed(every), command)


def run(objective: Objective, given: dict[str, Any]) -> None:
    """Fine-tune, in as many processes as there are."""
    from entrypoint import topology
    from entrypoint.meeting import meeting
    from entrypoint.results import telling

    with telling(given.pop("as_json")) as told, ExitStack() as met:
        settings = Settings(objective=objective, explicit=explicit(given), **given)
        # a model of the hub or the built-in one may have to come first, which takes longer
        if not settings.dry_run and topology.read_start(os.environ).rank == 0:
            met.enter_context(meeting(Path(settings.model), os.environ))
        # imports a lot, meanwhile
        from entrypoint import pipeline

        pipeline.fine_tune(settings, os.environ, met=met, told=told)


def explicit(
    given: dict[str, Any], sources: tuple[ParameterSource, ...] = GIVEN
) -> tuple[str, ...]:
    """Names of the options that come from the command line or a variable."""
    context = click.get_current_context()
    return tuple(name for name in given if context.get_parameter_source(name) in sources)
