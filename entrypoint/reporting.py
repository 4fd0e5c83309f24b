"""Write the page of a run."""

from pathlib import Path

from entrypoint.comparing import evaluations_of
from entrypoint.errors import SettingsError
from entrypoint.files import write_text
from entrypoint.run_folder import RunFolder


def report(run: RunFolder, output: Path | None = None) -> Path:
    """Write the page, by default as report.html of the run, and return its path.

    The run's own page holds nothing that is not in the run, so a new one takes its place, when it
    is whole.

    Raises:
        SettingsError: there is no run, or `output` exists.
    """
    path = output or run.report
    if output and output.exists():
        raise SettingsError(
            f"{path} exists already", where="--output or TRAIN_REPORT_OUTPUT",
            hint="give another file, or remove this one",
        )  # fmt: skip
    # matplotlib takes a second
    from entrypoint.report.facts import gather
    from entrypoint.report.page import render

    write_text(path, render(gather(run, evaluations_of(run))))
    return path
