"""`train eval`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from entrypoint import options
from entrypoint.commands import asking


@click.command("eval")
@options.checkpoint
@asking.base
@options.option("--label", metavar="NAME", help="What to call the model in the results.")
@options.option(
    "--output",
    command="eval",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Results and every sample as JSON; beside it, lm_eval/ has lm-eval's own files.  "
    "[default: in eval/ of the run, or in outputs/]",
)
@asking.scoring
@options.as_json
def evaluate(
    model: str,
    base: str | None,
    label: str | None,
    output: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Score a model on rows of your own, or on tasks of the lm-eval harness.

    The model is a base, tuned or quantized one, or a PEFT adapter. On rows: loss and perplexity of
    the answers, exact match, ROUGE and BLEU of greedy ones; on preference pairs how often the
    chosen answer is the likelier one. Without --tasks and --data the built-in rows are taken.
    """
    from entrypoint import scoring, zero_first
    from entrypoint.results import telling

    def work(environ: Mapping[str, str]) -> None:
        scoring.evaluate_one(
            model, scoring.Asked(**asked), environ, base=base, label=label, output=output, told=told
        )

    with telling(as_json) as told:
        zero_first.once(work, os.environ)
