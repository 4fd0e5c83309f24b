"""`train compare`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from entrypoint import options
from entrypoint.commands import asking


@click.command()
@click.argument("references", nargs=-1, required=True, metavar="[NAME=]REF...")
@options.gates
@options.option(
    "--output",
    command="compare",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where compare.json goes; must not exist.  [default: outputs/compare-<name>-<time>]",
)
@asking.scoring
@options.as_json
def compare(
    references: tuple[str, ...],
    gates: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Compare models on the same samples.

    REF is a result of `train eval` (a JSON file), or a model as --model of `train eval` takes it,
    which is scored first. One run folder alone stands for all its results. The first one is the
    base.

    Shows differences with 95 % intervals (paired bootstrap), McNemar's exact test where answers are
    right or wrong, sizes and speeds. compare.json also has the samples that changed most.
    """
    from entrypoint import comparing, scoring, zero_first
    from entrypoint.results import telling

    def work(environ: Mapping[str, str]) -> None:
        comparing.compare_models(
            references, scoring.Asked(**asked), environ, gates=gates, output=output, told=told
        )

    with telling(as_json) as told:
        zero_first.once(work, os.environ)
