"""`train doctor`."""

import json
import os

import click

from entrypoint import options
from entrypoint.errors import DoesNotFitError


@click.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Check this machine: packages, GPUs, memory, folders, tokens, the job's variables.

    Says what each finding means and what to do about it. Ends with 6 when there is a problem.
    """
    from entrypoint.doctor import examine
    from entrypoint.doctor.gather import gather

    findings = examine.examine(gather(os.environ))
    if as_json:
        click.echo(json.dumps(examine.as_dict(findings), indent=2))
    else:
        click.echo(examine.as_text(findings))
    if found := examine.problems(findings):
        raise DoesNotFitError(f"not ready for every run: {', '.join(found)}")
