"""What MLflow keeps of a run beside its metrics: settings, scores, and files that tell of it."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from entrypoint import loggers
from entrypoint.errors import SettingsError
from entrypoint.files import read_json
from entrypoint.run_folder import RunFolder
from entrypoint.secrets import Redactor

RUN_ID = "MLFLOW_RUN_ID"
"""Names the job's own run inside Azure ML."""
PREFIX = "settings."
"""Of the parameters that are settings; the others are keys of the recipe."""
EVALUATIONS = "eval"
"""The folder of artifacts that scores are in."""


def hand_over(folder: RunFolder, names: Iterable[str]) -> None:
    """Give a finished run's settings, scores, report and manifest to the run that MLflow has its
    metrics in. A server that fails costs a warning.

    Args:
        names: the loggers of the run.
    """
    if "mlflow" not in names:
        return
    from entrypoint.tune.logged import RECORD, Record

    run = os.environ.get(RUN_ID) or Record(folder.logs / RECORD, "mlflow").read()
    if run is None:  # it could not be opened, which the training has said
        return
    settings = (read_json(folder.manifest) or {}).get("settings", {})
    result = read_json(folder.result) or {}
    files = (folder.manifest, folder.recipe, folder.result, folder.report, folder.comparison)
    _log(
        run,
        parameters={f"{PREFIX}{name}": str(value) for name, value in settings.items() if value},
        scores=scores_of(result.get("evaluation", {})),
        files={"": files, EVALUATIONS: sorted(folder.evaluations.glob("*.json"))},
    )


def attach(evaluation: Path, label: str, scores: Mapping[str, float]) -> None:
    """Give the scores of `train eval` to the run of the job of Azure ML that it is."""
    run = os.environ.get(RUN_ID)
    if run is None:
        return
    try:
        chosen = loggers.chosen((), os.environ)
    except SettingsError:  # MLflow is not installed: nobody asked for it
        return
    if "mlflow" in chosen:
        _log(run, {}, scores_of({label: scores}), {EVALUATIONS: (evaluation,)})


def scores_of(evaluations: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Scores by dotted names: eval.tuned.exact_match."""
    return {
        f"{EVALUATIONS}.{label}.{name}": value
        for label, scores in evaluations.items()
        for name, value in scores.items()
    }


def _log(
    run: str,
    parameters: Mapping[str, str],
    scores: Mapping[str, float],
    files: Mapping[str, Iterable[Path]],
) -> None:
    from entrypoint.tune.loggers import log_parameters, patient

    try:
        client: Any = patient()
        log_parameters(client, run, parameters)
        for name, value in scores.items():
            client.log_metric(run, name, value)
        for place, paths in files.items():
            for path in paths:
                if path.is_file():
                    client.log_artifact(run, str(path), place or None)
    except Exception as error:  # noqa: BLE001 - the run is whole without it
        said = Redactor(os.environ)(" ".join(str(error).split()))[:500]
        print(
            f"warning: mlflow does not take the report of the run, which is in its folder. "
            f"{type(error).__name__}: {said}",
            file=sys.stderr,
            flush=True,
        )
