"""`train models`."""

import json
import os
from typing import Any

import click

from entrypoint import options

TABLE_WIDTH = 110


@click.command()
@click.argument("reference", metavar="[REF]", required=False)
@options.as_json
def models(reference: str | None, as_json: bool) -> None:
    """List supported models, or say what one is.

    REF is a model folder (its config.json is enough), ORG/NAME[@REVISION] on the model hub (no
    weights are downloaded), or `embedded`.
    """
    from rich.console import Console
    from rich.table import Table

    from entrypoint.models.inspection import as_dict, inspect
    from entrypoint.models.published import published

    found = [inspect(reference, os.environ)] if reference else published().values()
    cards = [as_dict(model) for model in found]
    if as_json:
        click.echo(json.dumps(cards[0] if reference else cards, indent=2))
        return
    if reference:
        for name, value in cards[0].items():
            click.echo(f"{name:<13} {readable(value)}")
        return
    table = Table(box=None)
    table.add_column("model", no_wrap=True)
    table.add_column("family")
    table.add_column("parameters", justify="right")
    table.add_column("context", justify="right")
    table.add_column("tokenizer")
    for card in cards:
        counts = [readable(card[key]) for key in ("parameters", "context")]
        tokenizer = f"{card['tokenizer']}, {readable(card['arguments']['vocab_size'])} tokens"
        table.add_row(card["reference"], card["family"], *counts, tokenizer)
    # names are there to be copied, and lines to be searched: neither is cut where no terminal is
    Console(highlight=False, width=max(Console().width, TABLE_WIDTH)).print(table)


def readable(value: Any) -> str:
    """A value of a card for people."""
    match value:
        case None | []:
            return "none"
        case int():
            return f"{value:,}"
        case list():
            return f"{len(value)}: {', '.join(value)}" if len(value) > 1 else str(value[0])
        case dict():
            return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value)
