"""`train report`."""

from pathlib import Path

import click

from entrypoint import options


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@options.option(
    "--output",
    command="report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page; must not exist.  [default: report.html of the run, which is made anew]",
)
@options.as_json
def report(run: Path, output: Path | None, as_json: bool) -> None:
    """Write one self-contained HTML page of a run.

    Curves, the comparison of its models with intervals, what quantization costs, statistics of the
    data, the samples that changed most, configuration, environment, and the command to run it
    again. RUN is a run folder; evaluations that were added to it later are on the page too, once it
    is made anew.
    """
    from entrypoint import reporting
    from entrypoint.results import telling
    from entrypoint.run_folder import RunFolder

    with telling(as_json) as told:
        page = reporting.report(RunFolder(root=run), output)
        click.echo(f"report: {page}")
        told({"report": str(page)})
