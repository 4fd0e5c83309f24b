"""torchrun on one node as `train` needs it: quick to end, patient with a signal, and brief."""

import logging
import os
import signal
from contextlib import suppress
from typing import Any

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
AFTERMATH_S = 5
"""How long processes may take to end when another one of their node has failed. They cannot go on,
and one that waits for the dead in a collective does not see that it is told to end."""


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it dies, however that ends.

    Nobody else would end the processes of a torchrun that was killed.
    """
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError, TypeError):
        pass  # not Linux


def apply() -> None:
    """Change how torchrun (torch 2.8 to 2.13) treats the processes that it has started.

    - It took a signal for itself and killed them 30 s later, whatever --grace says. Now they get
      the signal, and it waits until they have ended.
    - It gave the processes of a failed job 30 s to end.
    - It logged each step of both.
    """
    from torch.distributed.elastic.multiprocessing import api as typed

    api: Any = typed
    stock_start, stock_close = api.PContext.start, api.PContext.close
    started: list[Any] = []

    def start(context: Any) -> None:
        started.append(context)
        stock_start(context)

    def close(context: Any, death_sig: Any = None, timeout: int = AFTERMATH_S) -> None:
        stock_close(context, death_sig, min(timeout, AFTERMATH_S))

    def pass_on(number: int, _: Any) -> None:
        for context in started:
            for pid in context.pids().values():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    api.PContext.start, api.PContext.close = start, close
    api._terminate_process_handler = pass_on
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
