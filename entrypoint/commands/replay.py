"""`train replay`."""

import os
from pathlib import Path

import click

from entrypoint import options


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@options.option(
    "--output",
    command="replay",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The new run folder; must not hold a run yet.  "
    "[default: outputs/<objective>-<model>-<time>]",
)
@options.option(
    "--strict", is_flag=True, help="Start only if model, data and recipe are the recorded ones."
)
@options.dry_run
@options.as_json
def replay(run: Path, output: Path | None, strict: bool, dry_run: bool, as_json: bool) -> None:
    """Run a run again, from its manifest.

    RUN is the folder of an earlier run. Before the start it is said what differs from what was
    recorded: versions, model, data, recipe, machine. In the end losses, scores and weights of both
    runs are compared. Models and data sets of the hub are taken at the recorded commit.
    """
    from entrypoint import replaying
    from entrypoint.results import telling

    with telling(as_json) as told:
        replaying.replay(run, os.environ, output=output, dry_run=dry_run, strict=strict, told=told)
