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

from entrypoint import noise

noise.silence()

PROCESSES = 4
COUNTED = 10_000
ROUNDS = 3
AT_ONCE = 512
OPEN = """
import sys, time
from entrypoint import noise
noise.silence()
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
print("ready", flush=True)
sys.stdin.readline()
print(len(rows), opened, private() - before, flush=True)
sys.stdin.readline()
"""
PREPARE = "from entrypoint.cli import main; import sys; main(sys.argv[1:])"


def start(path: Path) -> None:
    """Open the rows in all processes at a time, and hold them until all have read them."""
    processes = [
        subprocess.Popen(
            (sys.executable, "-c", OPEN, str(path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    answers: list[list[list[str]]] = []
    # all have the file open while each looks at what is its own
    for _ in ("ready", "measured"):
        answers.append([process.stdout.readline().split() for process in processes])
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
    for process in processes:
        process.wait()
    found = answers[1]
    seconds = [float(opened) for _, opened, _ in found]
    print(f"{PROCESSES} processes, {int(found[0][0]):,} rows, {path.stat().st_size / 1e6:.0f} MB")
    print(f"until the first row is read: {min(seconds):.1f} to {max(seconds):.1f} s")
    print(f"memory of each that is not shared: {max(float(own) for *_, own in found):.0f} MB more")


def count(path: Path, model: Path) -> None:
    """Time how tokens are counted, and the tokenizer alone on the same texts."""
    from entrypoint.data.chat import Chat
    from entrypoint.data.readers import read
    from entrypoint.data.tokens import TokenInspector
    from entrypoint.data.trained import CANONICAL

    chat = Chat(str(model))
    tables = [batch.table for batch in read(path, CANONICAL["sft"])]
    texts = [chat.render(row["messages"]) for table in tables for row in table.to_pylist()]

    def alone() -> None:
        for at in range(0, len(texts), AT_ONCE):
            chat.tokenizer.backend.encode_batch(texts[at : at + AT_ONCE], add_special_tokens=False)

    def counted() -> None:
        inspector = TokenInspector(chat, 2048)
        for table in tables:
            inspector.met(table, str)

    ratios = []
    for _ in range(ROUNDS):
        taken = []
        for work in (alone, counted):
            begun, cpu = time.monotonic(), time.process_time()
            work()
            taken.append((time.monotonic() - begun, time.process_time() - cpu))
        (wall, cpu), (our_wall, our_cpu) = taken
        ratios.append((our_wall / wall, our_cpu / cpu))
        print(f"tokenizer {wall:.1f} s, {cpu:.1f} s of CPU; counting {our_wall:.1f}, {our_cpu:.1f}")
    for index, kind in enumerate(("wall", "CPU")):
        median = statistics.median(ratio[index] for ratio in ratios)
        print(f"counting / the tokenizer alone, {kind}: {median:.2f}")


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
