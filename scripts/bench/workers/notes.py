"""Notes when a step ended, its loss, and what the process has used; for all workers."""

import json
import resource
import time
from pathlib import Path


class Notes:
    """Writes `steps.json`: one entry before the first step and one after each.

    Args:
        folder: where the file goes.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder, "steps.json")
        self.found: list[dict[str, float]] = []
        self.note()

    def note(self, loss: float = 0.0) -> None:
        """A step has just ended, or the first begins."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.found.append(
            {
                "time": time.perf_counter(),
                "cpu": used.ru_utime + used.ru_stime,
                "peak": used.ru_maxrss * 1024,
                "loss": float(loss),
            }
        )
        self.path.write_text(json.dumps(self.found))
