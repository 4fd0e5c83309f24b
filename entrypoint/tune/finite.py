"""What a step found that is not a number, and which rows it came from."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from entrypoint.errors import TrainingError
from entrypoint.files import write_json
from entrypoint.tune.worlds import Ranks


def check_finite(
    found: Mapping[str, float],
    numbers: Sequence[int],
    ranks: Ranks,
    logs: Path,
    step: int,
    epoch: int,
) -> None:
    """Refuse to learn from a step that went wrong; all processes find the same.

    Args:
        found: loss, norm of the gradient and other figures of the step.
        numbers: rows of this process, from 0.
        logs: folder for a file that names the rows.
        step: its number, from 1; so is `epoch`.

    Raises:
        TrainingError: a figure is not finite.
    """
    if all(math.isfinite(value) for value in found.values()):
        return
    rows = sorted(row + 1 for part in ranks.gathered(list(numbers)) for row in part)
    path = logs / f"not-finite-step-{step}.json"
    if ranks.leads:
        seen = {name: str(value) for name, value in found.items()}
        write_json(path, {"step": step, "epoch": epoch, **seen, "rows": rows})
    raise TrainingError(
        f"the loss is {found['loss']} at step {step}, "
        f"the gradient's norm {found.get('grad_norm', 'unknown')}",
        where=f"{path}, which names the rows of the step",
        hint="lower --lr, look at these rows, or train with --dtype fp32",
    )
