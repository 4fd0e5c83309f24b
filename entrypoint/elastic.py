"""How a job of several processes ends."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

SIGNAL_EXITS = {-2: 130, -15: 143, 130: 130, 143: 143}
"""Exit codes of a process that a signal ended, at once or with a checkpoint saved."""


@contextmanager
def exit_of_first_failure() -> Iterator[None]:
    """End with the exit code of the process that failed first.

    torchrun, which starts several, ends with a traceback of its own and with 1 whatever happened.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        yield
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode in SIGNAL_EXITS:
            sys.exit(SIGNAL_EXITS[failure.exitcode])
        print(f"rank {rank} failed first, with exit code {failure.exitcode}", file=sys.stderr)
        # a signal's number is negative there
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
