"""Time `train prepare` against `datasets` reading the same rows and writing them again.

    python scripts/bench_prepare.py [ROWS]

Each runs in a process of its own, in turns. Figures go to docs/benchmarks.md by hand.
"""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
DATASETS = """
import sys, datasets
datasets.disable_progress_bars()
rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
rows.to_json(sys.argv[2] + "/rows.jsonl")
"""
PREPARE = """
import sys
from entrypoint.cli import main
main(["prepare", "--no-tokens", "--data", sys.argv[1], "--output", sys.argv[2] + "/out"])
"""


def generate(path: Path, count: int) -> None:
    """Instruction rows of about 480 bytes, one in a hundred a duplicate."""
    chance = random.Random(0)
    words = [
        "".join(chance.choices("etaoinshrdlucmfw", k=chance.randint(2, 9))) for _ in range(5000)
    ]

    def text(length: int) -> str:
        return " ".join(chance.choices(words, k=length)) + chance.choice(("\n", ' "so"', " é"))

    line = ""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            if number % 100 or not line:
                row = {
                    "instruction": f"{text(20)} {number}",
                    "input": text(8) if number % 2 else "",
                    "output": text(40),
                }
                line = json.dumps(row, ensure_ascii=False) + "\n"
            file.write(line)


def measure(code: str, rows: Path) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds, peak resident MB of a process."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.monotonic()
        process = subprocess.Popen((sys.executable, "-c", code, str(rows), folder))
        peak = 0
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            found = [line for line in status.splitlines() if line.startswith("VmHWM")]
            peak = max(peak, int(found[0].split()[1]) // 1024) if found else peak
            time.sleep(0.05)
        if process.wait():
            raise SystemExit(f"failed with exit code {process.returncode}")
        wall = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, peak


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        generate(rows, count)
        print(f"{count:,} rows, {rows.stat().st_size / 1e6:.0f} MB, {ROUNDS} rounds")
        found: dict[str, list[tuple[float, float, int]]] = {"datasets": [], "prepare": []}
        for _ in range(ROUNDS):
            for name, code in (("datasets", DATASETS), ("prepare", PREPARE)):
                found[name].append(measure(code, rows))
                wall, cpu, peak = found[name][-1]
                print(f"{name:<9} {wall:6.1f} s  {cpu:6.1f} s of CPU  {peak:5} MB", flush=True)
    for index, kind in enumerate(("wall", "CPU")):
        ratio = statistics.median(
            ours[index] / theirs[index]
            for ours, theirs in zip(found["prepare"], found["datasets"], strict=True)
        )
        print(f"prepare / datasets, {kind}: {ratio:.2f}")


if __name__ == "__main__":
    main()
