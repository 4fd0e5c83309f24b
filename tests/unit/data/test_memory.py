"""Memory while a data set is prepared: bounded by its batches, not by its rows."""

import subprocess
import sys
from pathlib import Path

from tests.unit.data.sets import lines

ROWS = 80_000
CODE = """
import sys
from entrypoint.data import json_rows
from entrypoint.cli import run
json_rows.CHUNK_BYTES = 1 << 20
code = run(["prepare", "--no-tokens", "--data", sys.argv[1], "--output", sys.argv[2]])
# not getrusage, whose peak is that of the process before exec as well
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
sys.exit(code)
"""


def peak_mb(path: Path, out: Path) -> int:
    ended = subprocess.run(
        (sys.executable, "-c", CODE, str(path), str(out)), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout.splitlines()[-1])


def test_four_times_the_rows_take_little_more_memory(tmp_path: Path):
    part = lines(
        [
            {"instruction": f"question {number} " + "word " * 60, "output": "word " * 60}
            for number in range(ROWS)
        ]
    )
    peaks = []
    for times in (1, 4):
        path = tmp_path / f"{times}.jsonl"
        # no part repeats another, so that there are as many hashes as rows
        path.write_bytes(
            b"".join(part.replace(b"question", b"q%d" % time) for time in range(times))
        )
        peaks.append(peak_mb(path, tmp_path / f"out{times}"))
    size_mb = len(part) / 1e6
    assert size_mb > 50
    assert peaks[1] - peaks[0] < size_mb, (
        f"{peaks} MB for rows of {size_mb:.0f} and four times that"
    )
