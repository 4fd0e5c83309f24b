"""`train models`."""

import json
import os

import click


@click.command()
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(reference: str | None, as_json: bool) -> None:
    """List supported models, or say what one is.

    REF is a model folder (its config.json is enough), ORG/NAME[@REVISION] on the model hub (nothing
    is downloaded), or `embedded`.
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
            click.echo(f"{name:<13} {value:,}" if isinstance(value, int) else f"{name:<13} {value}")
        return
    table = Table(box=None)
    table.add_column("model")
    table.add_column("family")
    table.add_column("parameters", justify="right")
    table.add_column("context", justify="right")
    for card in cards:
        parameters, context = f"{card['parameters']:,}", f"{card['context']:,}"
        table.add_row(card["reference"], card["family"], parameters, context)
    Console(highlight=False).print(table)
