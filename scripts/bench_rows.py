"""Measure what a run does with a million rows: how fast processes start on them, and how fast
their tokens are counted.

    python scripts/bench_rows.py [ROWS]

Figures go to docs/benchmarks.md by hand.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_prepare import generate

PROCESSES = 4
COUNTED = 20_000
ROUNDS = 3
OPEN = """
import sys, time
from entrypoint.tune import compat
compat.apply()
from entrypoint.tune.datasets import Rows
def private():
    found = dict(line.split(":") for line in open("/proc/self/smaps_rollup") if "kB" in line)
    return sum(int(found[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024
before, start = private(), time.monotonic()
rows = Rows(sys.argv[1])
first, opened = rows[len(rows) // 2], time.monotonic() - start
for row in range(0, len(rows), 7):
    rows[row]
sys.stdin.read(1)
print(len(rows), opened, private() - before)
"""
PREPARE = "from entrypoint.cli import main; import sys; main(sys.argv[1:])"


def start(path: Path) -> None:
    """Open the rows in all processes at a time, and hold them until all have read some."""
    processes = [
        subprocess.Popen(
            (sys.executable, "-c", OPEN, str(path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    found = [process.communicate("x")[0].split() for process in processes]
    seconds = [float(opened) for _, opened, _ in found]
    print(f"{PROCESSES} processes, {int(found[0][0]):,} rows, {path.stat().st_size / 1e6:.0f} MB")
    print(f"until the first row is read: {min(seconds):.1f} to {max(seconds):.1f} s")
    print(f"memory of each that is not shared: {max(float(own) for *_, own in found):.0f} MB more")


def count(path: Path, model: Path) -> None:
    """Time prepare with tokens and without, and the tokenizer alone on the same texts."""
    from entrypoint.data.chat import Chat
    from entrypoint.tune import compat

    compat.apply()
    from entrypoint.data.rows import to_sample
    from entrypoint.tune.datasets import Rows

    chat = Chat(str(model))
    texts = [chat.render(to_sample(row)["messages"]) for row in Rows(path)]

    def alone() -> None:
        chat.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)

    def prepare(*more: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            asked = ("prepare", "--data", str(path), "--output", f"{folder}/out", *more)
            subprocess.run(
                (sys.executable, "-c", PREPARE, *asked), check=True, stdout=subprocess.DEVNULL
            )

    ratios = []
    for _ in range(ROUNDS):
        taken = []
        for work in (
            alone,
            lambda: prepare("--model", str(model)),
            lambda: prepare("--no-tokens"),
        ):
            begun = time.monotonic()
            work()
            taken.append(time.monotonic() - begun)
        ratios.append((taken[1] - taken[2]) / taken[0])
        print(
            f"tokenizer {taken[0]:.1f} s; prepare {taken[1]:.1f} s, without tokens {taken[2]:.1f} s"
        )
    print(f"what counting adds / the tokenizer alone, wall: {statistics.median(ratios):.2f}")


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path, some = Path(folder) / "rows.jsonl", Path(folder) / "some.jsonl"
        generate(path, rows)
        prepared = Path(folder) / "prepared"
        asked = ("prepare", "--no-tokens", "--data", str(path), "--output", str(prepared))
        subprocess.run((sys.executable, "-c", PREPARE, *asked), check=True)
        start(prepared / "train.jsonl")
        with (prepared / "train.jsonl").open() as lines, some.open("w") as file:
            file.writelines(line for _, line in zip(range(COUNTED), lines, strict=False))
        from entrypoint.models.embedded.materialise import embedded_folder, materialise

        model = embedded_folder(os.environ)
        materialise(model)
        count(some, model)


if __name__ == "__main__":
    main()
