"""`python -m entrypoint.evaluation REQUEST`: the process that an evaluation runs in.

A process of its own starts with the allocator's settings (they can only be given at start) and
gives all its memory back before the next step. With several, this one starts them by torchrun.
"""

import os
import sys

from entrypoint import noise
from entrypoint.elastic import exit_of_first_failure
from entrypoint.errors import ExitCode, TrainError
from entrypoint.evaluation.request import Request
from entrypoint.hardware import affine_cores, whole_cores


def main() -> int:
    """Carry out the request that is the argument; returns an exit code of `errors.ExitCode`."""
    noise.silence()
    request = Request.from_json(sys.argv[1])
    each = max(whole_cores() // request.processes, 1)
    if request.processes > 1 or each < affine_cores():
        # torchrun gives each process one thread, and torch does not look at a container's quota
        os.environ.setdefault("OMP_NUM_THREADS", str(each))
    if request.processes > 1 and "LOCAL_RANK" not in os.environ:
        return start(request)
    try:
        # seconds, in which a signal may come too
        from entrypoint.evaluation import harness

        noise.hide_loading_bars()
        noise.hide_complaint_of_git()
        harness.evaluate(request)
    except TrainError as error:
        print(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        # whoever passed the signal on says so
        return ExitCode.SIGINT
    return 0


def start(request: Request) -> int:
    """Start the processes and wait for them."""
    from torch.distributed.run import main as torchrun

    with exit_of_first_failure():
        torchrun(
            [
                *("--standalone", "--nproc_per_node", str(request.processes)),
                *("-m", "entrypoint.evaluation", sys.argv[1]),
            ]
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
