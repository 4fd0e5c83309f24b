"""`train prepare`."""

import os
from typing import Any

import click

from entrypoint import options


@click.command()
@options.data
@options.preset
@options.split
@options.row_format
@options.columns
@options.eval_fraction
@options.max_rows
@options.shuffle
@options.seed
@options.policy
@options.prepare_output
@options.model
@options.no_tokens
@options.max_seq_len
@options.preview
@options.near_duplicates
@options.check_leakage
@options.tasks_folder
@options.as_json
def prepare(**given: Any) -> None:
    """Make any data set a checked one that training reads.

    Writes train.jsonl, eval.jsonl and dataset.json to a new folder, which --data of the other
    commands takes. Every row is checked: what is wrong is counted, and named by file and line.

    Policies say what happens to rows that a check has met. By default rows without content, with
    wrong roles or without a token to learn from are errors; others are kept and reported.
    """
    from entrypoint.preparation import Asked, prepare_one

    prepare_one(Asked(**given), os.environ)
