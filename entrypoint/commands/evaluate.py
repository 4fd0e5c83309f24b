"""`train eval`."""

import os
from collections.abc import Mapping
from pathlib import Path

import click

from entrypoint import options
from entrypoint.settings import Device, Dtype


@click.command("eval")
@options.checkpoint
@options.tasks
@options.tasks_folder
@options.option("--label", metavar="NAME", help="What to call the model in the results.")
@options.option(
    "--output",
    command="eval",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Results and every sample as JSON.  [default: in eval/ of the run, or in outputs/]",
)
@options.limit
@options.device
@options.dtype
def evaluate(
    model: str,
    tasks: tuple[str, ...],
    tasks_folder: Path | None,
    label: str | None,
    output: Path | None,
    limit: int | None,
    device: Device,
    dtype: Dtype,
) -> None:
    """Score a model with the lm-eval harness."""
    from entrypoint import scoring, zero_first

    def work(environ: Mapping[str, str]) -> None:
        scoring.evaluate_one(
            model, tasks, environ,
            include=tasks_folder, label=label, output=output, limit=limit, device=device,
            dtype=dtype,
        )  # fmt: skip

    zero_first.once(work, os.environ)
