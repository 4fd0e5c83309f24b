"""Two runs side by side."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from entrypoint.runs.differences import (
    Difference,
    Losses,
    differing,
    losses,
    outcome,
    parts_of,
)
from entrypoint.runs.record import Run, weights_hash


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """What two runs were not made from alike, and what came out of each."""

    names: tuple[str, str]
    differences: Sequence[Difference]
    figures: dict[str, tuple[float | int | None, float | int | None]]
    """By name; None where a run has none."""
    losses: Losses | None
    weights: dict[str, bool]
    """Of `final` and `adapter`, where both runs have it: whether the files are the same."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "runs": list(self.names),
            "differences": [asdict(one) for one in self.differences],
            "figures": {name: list(values) for name, values in self.figures.items()},
            "losses": self.losses and asdict(self.losses),
            "same_weights": self.weights,
        }


def pair(first: Run, second: Run, without: Sequence[str] = ()) -> Pair:
    """Compare two runs.

    Args:
        without: settings that are to differ.
    """
    made = [
        parts_of(run.manifest, yaml.safe_load(run.folder.recipe.read_text("utf-8")))
        for run in (first, second)
    ]
    figures = [outcome(run.result, run.metrics) for run in (first, second)]
    hashes = {
        name: [weights_hash(getattr(run.folder, name)) for run in (first, second)]
        for name in ("final", "adapter")
    }
    return Pair(
        names=(first.folder.root.name, second.folder.root.name),
        differences=differing(made[0], made[1], without),
        figures={
            name: (figures[0].get(name), figures[1].get(name))
            for name in dict.fromkeys((*figures[0], *figures[1]))
        },
        losses=losses(first.metrics, second.metrics),
        weights={name: left == right for name, (left, right) in hashes.items() if left and right},
    )
