"""What a run folder says of its run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from entrypoint.comparison.paired import Comparison, check_same, compare
from entrypoint.data.folder import DESCRIPTION
from entrypoint.errors import DataError
from entrypoint.evaluation.request import Evaluation
from entrypoint.files import read_json
from entrypoint.run_folder import RunFolder
from entrypoint.runs import record


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that the page is made of."""

    name: str
    manifest: Mapping[str, Any]
    recipe: str
    result: Mapping[str, Any] | None
    """None while the run has not ended."""
    metrics: Sequence[Mapping[str, Any]]
    """One for each optimizer step."""
    comparison: Comparison | None
    """None with fewer than two evaluations on the same samples."""
    left_out: Sequence[str]
    """Labels of evaluations on other samples than the first one's."""
    gates: Sequence[Mapping[str, Any]]
    dataset: Mapping[str, Any] | None
    """dataset.json of the prepared rows; None when they are gone from the cache."""


def gather(run: RunFolder, evaluations: Sequence[Evaluation]) -> Facts:
    """Read a run folder.

    Args:
        evaluations: of the run's models, the base first.

    Raises:
        SettingsError: there is no run, or its files cannot be read.
    """
    found = record.read(run.root)
    recipe = run.recipe.read_text("utf-8")
    comparison, left_out = _comparison(evaluations)
    compared = read_json(run.comparison) or {}
    return Facts(
        name=run.root.resolve().name,
        manifest=found.manifest,
        recipe=recipe,
        result=found.result or None,
        metrics=found.metrics,
        comparison=comparison,
        left_out=left_out,
        gates=compared.get("gates", ()),
        dataset=_dataset(recipe),
    )


def _comparison(evaluations: Sequence[Evaluation]) -> tuple[Comparison | None, list[str]]:
    """Of the evaluations on the first one's samples; and what the others are called."""
    same, others = list(evaluations[:1]), []
    for one in evaluations[1:]:
        try:
            check_same(evaluations[0], one)
            same.append(one)
        except DataError:
            others.append(one.label)
    return (compare(same) if len(same) > 1 else None), others


def _dataset(recipe: str) -> dict[str, Any] | None:
    """The description that lies beside the rows that the recipe names."""
    files = OmegaConf.select(OmegaConf.create(recipe), "dataset.data_files")
    return read_json(Path(files).parent / DESCRIPTION) if isinstance(files, str) else None
