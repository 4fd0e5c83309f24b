"""`python -m entrypoint.evaluation REQUEST`: the process that an evaluation runs in.

A process of its own starts with the allocator's settings (they can only be given at start) and
gives all its memory back before the next step.
"""

import sys

from entrypoint import noise
from entrypoint.errors import TrainError
from entrypoint.evaluation.request import Request


def main() -> int:
    noise.silence()
    from entrypoint.evaluation import harness

    noise.hide_loading_bars()
    try:
        harness.evaluate(Request.from_json(sys.argv[1]))
    except TrainError as error:
        print(f"Error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
