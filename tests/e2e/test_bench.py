"""`python -m scripts.bench`: a whole run without peers, on the tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def test_the_benchmark_trains_and_writes_its_figures(tiny_model: Path, tmp_path: Path):
    argv = (
        sys.executable, "-m", "scripts.bench", "--tasks", "sft-lora-fp32", "dpo-lora-bf16",
        "--peers", "--rounds", "1", "--steps", "3", "--threads", "1", "--model", str(tiny_model),
        "--output", str(tmp_path / "out"), "--scratch", str(tmp_path),
    )  # fmt: skip
    ended = subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert found.keys() == {
        "version", "cores", "threads", "tcmalloc", "rounds", "steps", "names", "tasks",
    }  # fmt: skip
    assert found["tasks"].keys() == {"sft-lora-fp32", "dpo-lora-bf16"}
    for task in found["tasks"].values():
        ours = task["contestants"]["tunecask"]
        assert ours["tokens_per_second"] > 0
        assert ours["peak_bytes"] > 50e6
        assert 0 < ours["loss"] < 10
        assert task["share_of_limit"] > 0
        assert task["ratio_to_best_peer"] is None
    assert (tmp_path / "out" / "bench.md").read_text().count("| Tunecask |") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "runs are not cleared away"


def test_a_run_has_begun_training_within_two_seconds_of_work(tiny_model: Path, tmp_path: Path):
    """Of CPU time, before the very process starts that `tune run` would be; once the rows have been
    looked at with this tokenizer, which another process does."""
    code = (
        "import os, sys\n"
        "from entrypoint import process\n"
        "from entrypoint.cli import main\n"
        "def started(*_, **__):\n"
        "    heavy = {'torch', 'transformers', 'scipy'} & set(sys.modules)\n"
        "    print(sorted(heavy), *os.times()[:4], flush=True)\n"
        "    os._exit(0)\n"
        "process.run = started\n"
        "main(sys.argv[1:])\n"
    )
    for number in range(2):
        argv = (
            sys.executable, "-c", code, "sft", "--model", str(tiny_model), "--device", "cpu",
            "--dtype", "fp32", "--max-seq-len", "256", "--output", str(tmp_path / str(number)),
        )  # fmt: skip
        environ = {**os.environ, "TRAIN_CACHE": str(tmp_path / "cache")}
        ended = subprocess.run(argv, capture_output=True, text=True, env=environ, check=True)
        heavy, *seconds = ended.stdout.splitlines()[-1].split()
        assert heavy == "[]"
        assert len(list((tmp_path / "cache/tokenizers").glob("*.json"))) == 1
        own, of_others = sum(map(float, seconds[:2])), sum(map(float, seconds[2:]))
        assert own < 2
        assert (of_others < 0.1) == (number == 1), "the first looks at the rows"
