"""`train quantize`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click

from entrypoint import options, schemes
from entrypoint.methods import GROUP_SIZE
from entrypoint.parameters import POSITIVE
from entrypoint.settings import QuantizationMethod

GROUPED = " and ".join(schemes.GROUPED)


@click.command()
@options.checkpoint
@options.option(
    "--method",
    command="quantize",
    type=click.Choice(get_args(QuantizationMethod)),
    default=schemes.Scheme().method,
    show_default=True,
    help="Bits of weights and activations: 8da4w has 4 and 8, int8-dynamic and fp8 8 and 8; "
    "nf4 has 4 and, as the weight-only ones, leaves activations as they are. fp8 needs a GPU that "
    "has it.",
)
@options.option(
    "--group-size",
    type=POSITIVE,
    metavar="COUNT",
    help=f"Weights that share one scale, in {GROUPED}; must divide the layers' columns.  "
    f"[default: {GROUP_SIZE}]",
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
    "--calibrate",
    metavar="REF",
    help=f"Rows to round by in {', '.join(schemes.BY_ROWS)}, as --data of `train sft` names them.  "
    "[default: those that the run was trained on; other models' weights are rounded to nearest]",
)
@options.option(
    "--calibration-rows",
    "rows",
    type=click.IntRange(min=0),
    metavar="COUNT",
    help="How many of them; 0 rounds each weight to nearest.  "
    f"[default: {schemes.CALIBRATION_ROWS}]",
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
    as_json: bool,
    **asked: Any,
) -> None:
    """Quantize a model, into a folder that transformers loads.

    With torchao; nf4 with bitsandbytes. The unquantized weights stay where they are. A method that
    the device cannot run is refused.

    8da4w, int4-weight-only and nf4 round so that each layer's output on sample rows changes least
    (GPTQ). int8-dynamic first moves scales from what reaches a layer into its weight (SmoothQuant).
    """
    from entrypoint import quantizing, zero_first
    from entrypoint.results import telling

    scheme = schemes.chosen(method, group_size, skip)

    def work(environ: Mapping[str, str]) -> None:
        quantizing.quantize_one(model, scheme, quantizing.Asked(**asked), environ, told=told)

    with telling(as_json) as told:
        zero_first.once(work, os.environ)
