"""entrypoint.tune.agent: what torchrun does to the processes that it has started."""

import inspect
import logging
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import api as typed

from entrypoint.tune import agent
from entrypoint.tune.worlds import is_loss_of_contact

api: Any = typed


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch):
    """The time that torch was given to close, with our changes; they are undone afterwards."""
    times: list[int] = []
    monkeypatch.setattr(api.PContext, "start", lambda context: None)
    monkeypatch.setattr(api.PContext, "close", lambda context, sign, timeout: times.append(timeout))
    monkeypatch.setattr(api, "_terminate_process_handler", api._terminate_process_handler)
    logger = logging.getLogger("torch.distributed.elastic")
    level = logger.level
    agent.apply()
    yield times
    logger.setLevel(level)


def test_torch_still_needs_it():
    """Its agent kills at a signal, and waits half a minute for processes of a failed job."""
    with pytest.raises(api.SignalException):
        api._terminate_process_handler(signal.SIGTERM, None)
    assert inspect.signature(api.PContext.close).parameters["timeout"].default == 30


def test_a_signal_goes_to_the_processes_and_is_awaited(closed: list[int]):
    class Context(api.PContext):
        def __init__(self, process: Any) -> None:
            self.process = process

        def pids(self) -> dict[int, int]:
            return {0: self.process.pid}

    for method in list(Context.__abstractmethods__):
        setattr(Context, method, None)
    Context.__abstractmethods__ = frozenset()
    process = subprocess.Popen((sys.executable, "-c", "import time; time.sleep(60)"))
    context = Context(process)
    context.start()
    api._terminate_process_handler(signal.SIGTERM, None)
    assert process.wait(10) == -signal.SIGTERM
    # one that has ended is no error
    api._terminate_process_handler(signal.SIGTERM, None)
    context.close()
    context.close(timeout=30)
    assert closed == [agent.AFTERMATH_S] * 2


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[…/gloo/transport/tcp/pair.cc:547] Connection closed by peer"), True),
        (dist.DistBackendError("NCCL error"), True),
        (dist.DistNetworkError("the server socket has failed"), True),
        (RuntimeError("CUDA out of memory"), False),
    ],
)
def test_a_collective_that_fails_as_another_process_is_gone(error: RuntimeError, lost: bool):
    assert is_loss_of_contact(error) == lost
