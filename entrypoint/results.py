"""What a command tells other programs: one JSON document on standard output, with --json."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

Told = Callable[[Any], None]
"""Is given a command's result, as plain values, when there is one."""


def nowhere(_: Any) -> None:
    """For a result that nobody has asked for."""


@contextmanager
def telling(as_json: bool) -> Iterator[Told]:
    """While inside, what is given to the yielded function goes to standard output as JSON, and all
    that is printed for people goes to standard error; without `as_json` nothing changes."""
    if not as_json:
        yield nowhere
        return
    out = sys.stdout

    def tell(result: Any) -> None:
        json.dump(result, out, indent=2, ensure_ascii=False, default=str)
        out.write("\n")
        out.flush()

    with redirect_stdout(sys.stderr):
        yield tell
