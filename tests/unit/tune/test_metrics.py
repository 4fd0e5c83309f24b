"""entrypoint.tune.metrics: one object for each step, also after a step is made again."""

import json
from pathlib import Path

import torch

from entrypoint.tune import compat

compat.apply()

from entrypoint.tune.metrics import MetricStream  # noqa: E402


def test_whole_numbers_stay_whole_and_tensors_become_numbers(tmp_path: Path):
    stream = MetricStream(str(tmp_path))
    stream.log_dict({"tokens": 12, "loss": torch.tensor(0.5)}, step=1)
    stream.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "tokens": 12, "loss": 0.5}\n'


def test_steps_that_will_be_made_again_are_forgotten(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"st')
    stream = MetricStream(str(tmp_path))
    stream.rewind(2)
    stream.log_dict({"loss": 1.0}, step=3)
    stream.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
