"""Seconds from the start of `train sft` to its first step, beside the same `tune run` by hand, in
turns; exit code 1 above the bound: python -m scripts.bench_start [ROUNDS].

Both are measured in wall seconds and in CPU seconds of all their processes. The rows of the third
state are those of the second, which differ in each round.
"""

import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from entrypoint.models.embedded.materialise import embedded_folder, materialise
from scripts.bench import rows

BOUND = 2.0
"""Wall seconds that the launcher may add."""
STATES = ("first ever", "new rows, tokenizer known", "all known")
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 600.0


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    model = embedded_folder(os.environ).absolute()
    materialise(model)
    added: dict[str, list[tuple[float, float]]] = {state: [] for state in STATES}
    with tempfile.TemporaryDirectory(prefix="tunecask-start-") as scratch:
        for number in range(rounds):
            folder = Path(scratch) / str(number)
            for state, ours, by_hand in _round(folder, model, number):
                added[state].append((ours[0] - by_hand[0], ours[1] - by_hand[1]))
                print(
                    f"round {number + 1}, {state}: train sft {ours[0]:.2f} s, {ours[1]:.2f} s of "
                    f"CPU; tune run {by_hand[0]:.2f} s, {by_hand[1]:.2f} s of CPU",
                    flush=True,
                )
            shutil.rmtree(folder)
    print("\n| cache | seconds added | CPU seconds added | bound |\n|---|---|---|---|")
    medians = []
    for state, found in added.items():
        cells = []
        for values in zip(*found, strict=True):
            middle = statistics.median(values)
            cells.append(f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})")
        medians.append(statistics.median(wall for wall, _ in found))
        print(f"| {state} | {cells[0]} | {cells[1]} | {BOUND:g} |")
    sys.exit(max(medians) > BOUND)


def _round(
    folder: Path, model: Path, number: int
) -> Iterator[tuple[str, tuple[float, float], tuple[float, float]]]:
    """Each state once: its name, and (wall, CPU) seconds of `train sft` and of `tune run`."""
    cache = folder / "cache"
    environ = os.environ | {"TRAIN_CACHE": str(cache)}
    for state in STATES:
        run, known = folder / state.split()[0], state == STATES[2]
        count = rows.COUNT - 2 * number - (state != STATES[0])
        data = folder / f"rows-{count}"
        if not known:
            rows.write(rows.generate(count), data, preference=False)
        asked = (
            str(Path(sys.executable).with_name("train")), "sft", "--model", str(model),
            "--data", str(data), "--max-steps", "2", "--output", str(run),
        )  # fmt: skip
        ours = first_step(asked, environ, run)
        # what is typed by hand meets the cache that `train sft` met, but for the rows: these are
        # an argument
        if state == STATES[0]:
            shutil.rmtree(cache / "tokenizers")
        again = run.with_name(f"{run.name}-again")
        again.mkdir()
        recipe = (run / "recipe.yaml").read_text().replace(str(run), str(again))
        (again / "recipe.yaml").write_text(recipe)
        line = (run / "command.txt").read_text().replace(str(run), str(again))
        yield state, ours, first_step(("env", *shlex.split(line)), environ, again)


def first_step(argv: Sequence[str], environ: dict[str, str], run: Path) -> tuple[float, float]:
    """Wall and CPU seconds from the start to the first line of the metrics.

    Raises:
        SystemExit: the command ended before.
    """
    metrics, log = run / "logs" / "metrics.jsonl", run.with_suffix(".log")
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, env=environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        while not (metrics.is_file() and b"\n" in metrics.read_bytes()):
            if process.poll() is not None or time.monotonic() - began > PATIENCE_S:
                raise SystemExit(f"{shlex.join(argv)} made no step:\n{log.read_text()[-2000:]}")
            time.sleep(0.005)
        return time.monotonic() - began, cpu_seconds(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def cpu_seconds(pid: int) -> float:
    """Of a process, and of those that it and its children have started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS + sum(
        cpu_seconds(int(child))
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    )


if __name__ == "__main__":
    main()
