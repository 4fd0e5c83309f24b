"""`train runs`."""

from pathlib import Path

import click

from entrypoint import options
from entrypoint.run_folder import OUTPUTS


@click.command()
@click.argument("pair", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN RUN]")
@options.option(
    "--outputs",
    type=click.Path(path_type=Path),
    default=OUTPUTS,
    show_default=True,
    metavar="FOLDER",
    help="Where the runs are.",
)
@options.as_json
def runs(pair: tuple[Path, ...], outputs: Path, as_json: bool) -> None:
    """List runs, or compare two.

    The list has name, start, objective, method, model, steps, the last loss, a score and what has
    become of each. Of two runs it is shown what they were not made from alike (settings, model,
    data, recipe, machine, versions), and their figures side by side.
    """
    from entrypoint import replaying
    from entrypoint.results import telling

    if len(pair) not in (0, 2):
        raise click.UsageError("give two runs to compare, or none to list all")
    with telling(as_json) as told:
        if pair:
            replaying.compare_runs(pair[0], pair[1], told)
        else:
            replaying.list_runs(outputs, told)
