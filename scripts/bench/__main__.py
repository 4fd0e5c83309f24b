"""`make bench`: train the same rows with Tunecask and with its peers, in turns."""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from entrypoint import allocator
from entrypoint.files import write_json, write_text
from entrypoint.models.embedded.materialise import cache_folder, embedded_folder
from entrypoint.models.weights import check_whole, find_shards
from scripts.bench import environments, measure, report, rows
from scripts.bench.contestants import cores
from scripts.bench.tasks import OURS, TASKS, Job, Task

WORKERS = Path(__file__).with_name("workers")


def main() -> None:
    asked = arguments()
    threads = asked.threads or cores()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    cache = cache_folder(os.environ)
    model = (asked.model or embedded_folder(os.environ)).absolute()
    pythons = {OURS: Path(sys.executable)} | {
        peer: environments.python_of(peer, cache / "bench") for peer in asked.peers
    }
    library = allocator.find()
    print(f"{cores()} cores, {threads} threads; tcmalloc: {library or 'not installed'}", flush=True)
    scratch = Path(tempfile.mkdtemp(prefix="tunecask-bench-", dir=asked.scratch))
    try:
        results = [
            bench(task, asked.rounds, asked.steps, threads, model, pythons, scratch / task.name)
            for task in TASKS
            if task.name in asked.tasks
        ]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    names = {OURS: "Tunecask"} | {peer: environments.version_of(peer) for peer in asked.peers}
    text = report.table(results, names)
    write_json(
        asked.output / "bench.json",
        {
            "version": 1,
            "cores": cores(),
            "threads": threads,
            "tcmalloc": str(library) if library else None,
            "rounds": asked.rounds,
            "steps": asked.steps,
            "names": names,
            "tasks": {result["task"]: result for result in results},
        },
    )
    write_text(asked.output / "bench.md", text + "\n")
    print(f"\n{text}\n\n{asked.output / 'bench.json'}")


def bench(
    task: Task,
    rounds: int,
    steps: int,
    threads: int,
    model: Path,
    pythons: dict[str, Path],
    folder: Path,
) -> dict[str, Any]:
    """All rounds of one task, the contestants in turn."""
    data, tokens = folder / "rows", folder / "tokens.jsonl"
    written = rows.largest_first(rows.generate(), task.rows_per_step, steps)
    rows.write(written, data, preference=task.objective == "dpo")
    subprocess.run(
        (sys.executable, str(WORKERS / "tokens.py"), str(model), data / "train.jsonl", tokens),
        check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    lengths = [_tokens(json.loads(line)) for line in tokens.read_text().splitlines()]
    contestants = [OURS, *(peer for peer in task.peers if peer in pythons)]
    runs: dict[str, list[measure.Run]] = {name: [] for name in contestants}
    peaks = []
    for number in range(rounds):
        peaks.append(measure.gemm_peak(Path(sys.executable), task.dtype))
        print(f"{task.name}, round {number + 1}: {peaks[-1]:.0f} GFLOP/s", flush=True)
        for name in contestants:
            job = Job(
                task=task, steps=steps, model=model, rows=data, tokens=tokens,
                folder=folder / f"{name}-{number}",
            )  # fmt: skip
            found = measure.run(name, pythons[name], job, lengths)
            runs[name].append(found)
            shutil.rmtree(job.folder)
            print(
                f"  {name:<10} {found.tokens_per_second:6.0f} tokens/s  "
                f"{found.tokens_per_cpu_second:6.1f} tokens/CPU s  "
                f"{found.peak_bytes / 1e6:6.0f} MB  loss {found.loss:.3f}  "
                f"others {found.others:.0%}",
                flush=True,
            )
    return report.summary(task, runs, peaks, parameters(model), threads)


def parameters(model: Path) -> int:
    """Weights of a model, from the headers of its files."""
    return sum(math.prod(found.shape) for found in check_whole(model, find_shards(model)).values())


def _tokens(row: dict[str, list[int]]) -> int:
    return sum(len(value) for name, value in row.items() if "labels" not in name)


def arguments() -> argparse.Namespace:
    names = [task.name for task in TASKS]
    peers = sorted(environments.PACKAGES)
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=names, default=names)
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="of each run, two not counted")
    parser.add_argument("--threads", type=int, help="of each run; one for each core")
    parser.add_argument("--model", type=Path, help="a Llama folder; the built-in one")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--scratch", type=Path, help="for runs, deleted afterwards; /tmp")
    return parser.parse_args()


if __name__ == "__main__":
    main()
