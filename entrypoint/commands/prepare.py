"""`train prepare`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from entrypoint import options
from entrypoint.data.names import CHECKS, FORMATS, PRESETS
from entrypoint.options import option
from entrypoint.parameters import POSITIVE, Columns, CommaList, Number, Override

preset = option(
    "--preset",
    type=click.Choice(PRESETS),
    help="A published data set with its columns, instead of --data.",
)
split = option(
    "--split", metavar="SPLIT", help="Of a data set of the hub: train, or a slice, train[:10%]."
)
row_format = option(
    "--format", type=click.Choice(FORMATS), help="The shape of rows.  [default: found by itself]"
)
columns = option(
    "--columns",
    type=Columns(),
    default="",
    metavar="FIELD=COLUMN,…",
    help="Which column holds what: instruction=question,output=reply.",
)
eval_fraction = option(
    "--eval-fraction",
    type=Number(min=0, max=1, max_open=True),
    metavar="SHARE",
    help="Rows to hold out.  [default: 0.1; none where the source has its own]",
)
max_rows = option("--max-rows", type=POSITIVE, help="At most so many training rows.")
shuffle = option("--shuffle", is_flag=True, help="Write training rows in random order.")
policy = option(
    "--policy",
    "policies",
    multiple=True,
    type=Override(),
    metavar="CHECK=POLICY",
    help=f"error, drop or keep, for a check: {', '.join(CHECKS)}. Repeatable.",
)
prepare_output = option(
    "--output",
    command="prepare",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The folder to write; must not exist.  [default: outputs/prepare-<name>-<time>]",
)
no_tokens = option("--no-tokens", is_flag=True, help="Count no tokens; --model is not needed then.")
preview = option(
    "--preview", type=click.IntRange(min=0), default=0, metavar="N",
    help="Show the tokens of N rows in colour, by what is trained.",
)  # fmt: skip
near_duplicates = option(
    "--near-duplicates",
    type=Number(min=0, max=1, min_open=True),
    metavar="SIMILARITY",
    help="Also look for rows that share so much (0.8) of their words' runs.",
)
check_leakage = option(
    "--check-leakage",
    type=CommaList(),
    default="",
    help="Also look for text of these lm-eval tasks in the rows.",
)


@click.command()
@options.data
@preset
@split
@row_format
@columns
@eval_fraction
@max_rows
@shuffle
@options.seed
@policy
@prepare_output
@options.model
@no_tokens
@options.max_seq_len
@preview
@near_duplicates
@check_leakage
@options.tasks_folder
@options.shared_storage
@options.as_json
def prepare(as_json: bool, shared_storage: bool, **given: Any) -> None:
    """Make any data set a checked one that training reads.

    Writes train.jsonl, eval.jsonl and dataset.json to a new folder, which --data of the other
    commands takes. Every row is checked: what is wrong is counted, and named by file and line.

    Policies say what happens to rows that a check has met. By default rows without content, with
    wrong roles or without a token to learn from are errors; others are kept and reported.
    """
    from entrypoint import zero_first
    from entrypoint.preparation import Asked, prepare_one
    from entrypoint.results import telling

    def work(environ: Mapping[str, str]) -> None:
        prepare_one(Asked(**given), environ, told)

    with telling(as_json) as told:
        zero_first.on_each_node(work, os.environ, together=shared_storage)
