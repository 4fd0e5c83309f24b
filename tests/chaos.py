"""Kills training at random moments and starts it again until it has ended, several times over.

`python -m tests.chaos REQUEST.json`: torch is imported once, every start is a fork, and every kill
a SIGKILL. Half of the moments are chosen by the clock, half by what a process does with files in
its run folder: in the middle of a save, of clearing up, of putting the metrics back.
"""

import hashlib
import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entrypoint.zero_first import free_port

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
"""Of Python's audit hooks."""
TOUCHES, SECONDS = 90.0, 0.6
"""The latest moments: about as much as an undisturbed run needs."""
START_S = 120.0


def main(request: dict[str, Any]) -> None:
    """Run each recipe undisturbed, then kill it so often, through as many runs as that takes.

    Args:
        request: `recipes`, pairs of files: one and the same training, in two folders; `kills` of
            each; `seed`; `processes`; `seconds`, the longest time until a kill; `result`, a file
            that gets the outcomes of the runs of each pair, the undisturbed one first.
    """
    from omegaconf import OmegaConf

    from entrypoint.tune import compat

    compat.apply()
    from torchtune import config as components

    from entrypoint.tune import recipe as training

    moments, outcomes, processes = random.Random(request["seed"]), [], request["processes"]
    for pair in request["recipes"]:
        straight, disturbed = map(OmegaConf.load, pair)
        components.instantiate(straight.tokenizer)  # its imports are those of every start
        if attempt(training, straight, processes, None) != [0] * processes:
            sys.exit("the undisturbed run failed")
        found, kills = [outcome(straight)], 0
        while kills < request["kills"] or len(found) == 1:
            folder = Path(disturbed.output_dir).parent
            shutil.rmtree(folder, ignore_errors=True)
            while True:
                point = None
                if kills < request["kills"]:
                    kind = moments.choice(("touch", "seconds"))
                    point = kind, moments.uniform(0, TOUCHES if kind == "touch" else SECONDS)
                codes = attempt(training, disturbed, processes, point)
                if -signal.SIGKILL in codes:
                    kills += 1
                    steps = len(outcome(disturbed)["metrics"])
                    print(f"kill {kills}: {point}, after {steps} steps", flush=True)
                elif codes == [0] * processes:
                    break
                else:
                    sys.exit(f"exit codes {codes}")
            found.append(outcome(disturbed))
        outcomes.append(found)
    Path(request["result"]).write_text(json.dumps(outcomes))


def outcome(config: Any) -> dict[str, Any]:
    """What a run has come to."""
    folder = Path(config.output_dir)
    metrics = folder.parent / "logs" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    final = sorted(folder.glob("epoch_*/model-*.safetensors"))
    return {
        "metrics": [json.loads(line) for line in lines if line.endswith("\n")],
        "weights": [hashlib.sha256(path.read_bytes()).hexdigest() for path in final],
        "checkpoints": sorted(path.name for path in folder.glob("*step_*")),
    }


def attempt(
    training: Any, config: Any, processes: int, point: tuple[str, float] | None
) -> list[int]:
    """Run until the end or that point; exit codes, a signal's number negative.

    The clock starts when the first process touches the run folder.
    """
    folder, port = Path(config.output_dir).parent, free_port()
    for half in Path(config.output_dir).glob("epoch_*"):
        shutil.rmtree(half)  # as `train` does
    reads, writes = os.pipe()
    kind, value = point or ("", 0.0)

    def work(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        if rank == 0:
            watch(folder, writes, int(value) if kind == "touch" else None)
        from entrypoint.tune.stopping import Stop
        from entrypoint.tune.worlds import join, leave

        training.train(config, join("cpu"), Stop())
        leave()

    children = {forked(work, rank): rank for rank in range(processes)}
    os.close(writes)
    if kind == "seconds":
        select.select([reads], [], [], START_S)
        time.sleep(value)
        os.kill(max(children), signal.SIGKILL)
    codes: dict[int, int] = {}
    while len(codes) < processes:
        child, status = os.waitpid(-1, 0)
        codes[child] = os.waitstatus_to_exitcode(status)
        for other in children.keys() - codes.keys():
            if codes[child]:  # torchrun does the same
                os.kill(other, signal.SIGKILL)
    os.close(reads)
    return list(codes.values())


def watch(folder: Path, tell: int, last: int | None) -> None:
    """Tell when the run folder is first touched, and kill this process at its touch number
    `last`."""
    touched = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        if event not in EVENTS or not str(arguments[0]).startswith(str(folder)):
            return
        touched += 1
        if touched == 1:
            os.write(tell, b"!")
        if last is not None and touched > last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def forked(work: Callable[[int], None], rank: int) -> int:
    """A child that does the work and ends; what it prints is dropped unless it fails."""
    if pid := os.fork():
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = 1
    try:
        work(rank)
        code = 0
    finally:
        if code and sys.exc_info()[0]:
            import traceback

            traceback.print_exc()
        os._exit(code)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
