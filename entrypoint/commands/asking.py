"""Options of the commands that score models."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from entrypoint import options
from entrypoint.options import option
from entrypoint.parameters import POSITIVE, AutoOrCount

F = TypeVar("F", bound=Callable[..., Any])

data = option(
    "--data",
    command="eval",
    metavar="REF",
    help="Rows to score on, as `train sft --data` takes them: the held-out ones, or all where none "
    "are held out.  [default: `embedded`, when no --tasks are named]",
)
fewshot = option(
    "--fewshot",
    type=click.IntRange(min=0),
    metavar="COUNT",
    help="Examples before each question.  [default: as the task says; none for rows]",
)
batch_size = option(
    "--batch-size",
    command="eval",
    type=AutoOrCount(),
    default="auto",
    show_default=True,
    metavar="auto|ROWS",
    help="Rows that go through the model together; auto goes by their lengths and free memory.",
)
chat_template = option(
    "--chat-template/--no-chat-template",
    default=None,
    help="Ask in the words of the model's chat template.  [default: if it has one]",
)
max_new_tokens = option(
    "--max-new-tokens",
    type=click.IntRange(min=0),
    metavar="TOKENS",
    help="Longest answer; 0 asks for none.  [default: as the task says; for rows the longest "
    "expected one, at most 512]",
)
stop = option(
    "--stop",
    multiple=True,
    metavar="TEXT",
    help="A text that ends an answer, beside the model's end of turn. Repeatable.",
)
processes = option(
    "--nproc-per-node",
    command="eval",
    type=POSITIVE,
    metavar="N",
    help="Score in so many processes, each with the model on a device of its own and its share of "
    "the rows.  [default: one for each GPU]",
)
base = option(
    "--base",
    metavar="REF",
    help="The model that an adapter belongs on.  [default: the one that the adapter names]",
)


def scoring(command: F) -> F:
    """The options that say how models are scored, in the order that --help shows them in."""
    for one in reversed((
        data, options.tasks, options.tasks_folder, options.limit, fewshot, batch_size,
        chat_template, max_new_tokens, stop, options.max_seq_len, processes, options.device,
        options.dtype,
    )):  # fmt: skip
        command = one(command)
    return command
