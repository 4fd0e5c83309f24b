"""`train export`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import click

from entrypoint import options
from entrypoint.commands import asking
from entrypoint.settings import ExportKind, GgufType


@click.command()
@options.checkpoint
@asking.base
@options.option(
    "--to",
    "kind",
    command="export",
    type=click.Choice(get_args(ExportKind)),
    default="hf",
    show_default=True,
    help="hf: a whole model that transformers loads; peft: the adapter alone; gguf: one file for "
    "llama.cpp, with tokenizer and chat template.",
)
@options.option(
    "--gguf-type",
    type=click.Choice(get_args(GgufType)),
    default="f16",
    show_default=True,
    help="Number format of the weights in the GGUF file.",
)
@options.option(
    "--output",
    command="export",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where to write.  [default: export/ of the run, or outputs/export-<time>]",
)
@options.option(
    "--push",
    metavar="ORG/NAME",
    help="Also push it to this repository on the model hub, with HF_TOKEN.",
)
@options.option("--private", is_flag=True, help="A new repository is seen by its owner alone.")
@options.as_json
def export(
    model: str,
    base: str | None,
    kind: ExportKind,
    gguf_type: GgufType,
    output: Path | None,
    push: str | None,
    private: bool,
    as_json: bool,
) -> None:
    """Write a model so that others can load it, with a model card.

    The card (README.md) says what the run's manifest does: base model, data, settings, scores.
    Nothing leaves the machine without --push.
    """
    from entrypoint import exporting, zero_first
    from entrypoint.results import telling

    asked = exporting.Asked(
        kind=kind, gguf_type=gguf_type, base=base, output=output, push=push, private=private
    )

    def work(environ: Mapping[str, str]) -> None:
        exporting.export(model, asked, environ, told)

    with telling(as_json) as told:
        zero_first.once(work, os.environ)
