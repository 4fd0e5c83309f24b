"""`python -m entrypoint.tune run …`: torchtune's own command line, made importable first."""

import sys

from entrypoint import noise
from entrypoint.tune import agent, compat

SIGNAL_EXITS = {-2: 130, -15: 143, 130: 130, 143: 143}
"""Exit codes of a process that a signal ended, at once or with a checkpoint saved."""


def main() -> None:
    """Run it, and end with the exit code of the process that failed first.

    torchrun, which starts several, ends with a traceback of its own and with 1 whatever happened.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torchtune._cli.tune import main as tune

    try:
        tune()
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode in SIGNAL_EXITS:
            sys.exit(SIGNAL_EXITS[failure.exitcode])
        print(f"rank {rank} failed first, with exit code {failure.exitcode}", file=sys.stderr)
        # a signal's number is negative there
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


if __name__ == "__main__":
    agent.die_with_parent()
    noise.silence()
    compat.apply()
    agent.apply()
    main()
