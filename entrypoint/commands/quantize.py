"""`train quantize`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import click

from entrypoint import options
from entrypoint.settings import Device, Dtype, QuantizationMethod


@click.command()
@options.checkpoint
@options.option(
    "--method",
    command="quantize",
    type=click.Choice(get_args(QuantizationMethod)),
    default="8da4w",
    show_default=True,
    help="8da4w: 4-bit weights, 8-bit activations.",
)
@options.option(
    "--output",
    command="quantize",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where to write.  [default: quantized/ of the run, or outputs/quantize-<time>]",
)
@options.device
@options.dtype
def quantize(
    model: str, method: QuantizationMethod, output: Path | None, device: Device, dtype: Dtype
) -> None:
    """Quantize a model with torchao, into a folder that transformers loads.

    The unquantized weights stay where they are.
    """
    from entrypoint import pipeline, zero_first

    def work(environ: Mapping[str, str]) -> None:
        pipeline.quantize_one(model, method, environ, output=output, device=device, dtype=dtype)

    zero_first.once(work, os.environ)
