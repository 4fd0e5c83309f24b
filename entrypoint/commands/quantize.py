"""`train quantize`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import click

from entrypoint import options, schemes
from entrypoint.parameters import POSITIVE
from entrypoint.settings import Device, Dtype, QuantizationMethod


@click.command()
@options.checkpoint
@options.option(
    "--method",
    command="quantize",
    type=click.Choice(get_args(QuantizationMethod)),
    default=schemes.Scheme().method,
    show_default=True,
    help="Bits of weights and activations: 8da4w has 4 and 8, int8-dynamic and fp8 8 and 8; "
    "weight-only ones leave activations as they are. fp8 needs a GPU that has it.",
)
@options.option(
    "--group-size",
    type=POSITIVE,
    metavar="COUNT",
    help="Weights that share one scale, in the 4-bit methods; must divide the layers' columns.  "
    f"[default: {schemes.GROUP_SIZE}]",
)
@options.option(
    "--skip",
    multiple=True,
    default=schemes.Scheme().skip,
    show_default=True,
    metavar="PATTERN",
    help="Layers to leave alone, by name: 'model.layers.0.*', '*.down_proj'. Repeatable; name "
    "lm_head too, if the output head shall stay as it is.",
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
@options.as_json
def quantize(
    model: str,
    method: QuantizationMethod,
    group_size: int | None,
    skip: tuple[str, ...],
    output: Path | None,
    device: Device,
    dtype: Dtype,
    as_json: bool,
) -> None:
    """Quantize a model with torchao, into a folder that transformers loads.

    The unquantized weights stay where they are. A method that the device cannot run is refused.
    """
    from entrypoint import quantizing, zero_first
    from entrypoint.results import telling

    scheme = schemes.chosen(method, group_size, skip)

    def work(environ: Mapping[str, str]) -> None:
        quantizing.quantize_one(
            model, scheme, environ, output=output, device=device, dtype=dtype, told=told
        )

    with telling(as_json) as told:
        zero_first.once(work, os.environ)
