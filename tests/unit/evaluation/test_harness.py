"""entrypoint.evaluation: requests, scores and records."""

import json
from pathlib import Path

import numpy as np
import pytest

from entrypoint.errors import SettingsError
from entrypoint.evaluation.harness import flatten, record, task_manager
from entrypoint.evaluation.request import Evaluation, Request

REQUEST = Request(
    label="base",
    checkpoint=Path("/m"),
    tasks=("embedded",),
    device="cpu",
    dtype="fp32",
    output=Path("/o.json"),
    limit=3,
)


def test_a_request_survives_its_way_to_the_process():
    assert Request.from_json(REQUEST.to_json()) == REQUEST


def test_scores_are_named_by_task_and_metric():
    raw = {
        "a": {
            "alias": "a",
            "sample_len": 3,
            "exact_match,none": np.float64(0.5),
            "exact_match_stderr,none": 0.1,
            "acc,strict": 1,
            "acc_stderr,strict": "N/A",
        }
    }
    assert flatten(raw) == {"a/exact_match": 0.5, "a/acc@strict": 1.0}


def test_a_record_is_json_with_every_sample():
    sample = {
        "doc_id": 0,
        "arguments": [("prompt", {"until": ["\n"]})],
        "target": "t",
        "filtered_resps": ["answer"],
        "metrics": ["exact_match"],
        "exact_match": np.float64(1.0),
    }
    raw = {
        "results": {"a": {"m,none": np.float64(1)}},
        "samples": {"a": [sample]},
        "lm_eval_version": "1",
    }
    evaluation = Evaluation(label="b", checkpoint=Path("/m"), scores={"a/m": 1.0}, rows={"a": 1})
    written = json.loads(json.dumps(record(evaluation, raw)))
    assert written.keys() == {
        "version",
        "label",
        "checkpoint",
        "scores",
        "rows",
        "lm_eval",
        "samples",
    }
    assert written["samples"]["a"][0] == {
        "doc_id": 0,
        "prompt": [["prompt", {"until": ["\n"]}]],
        "target": "t",
        "answer": ["answer"],
        "scores": {"exact_match": 1.0},
    }


def test_tasks_of_ours_of_the_users_and_of_nobody(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("task: mine\n")
    assert {"embedded", "mine"} <= set(task_manager(("embedded", "mine"), tmp_path).all_tasks)
    with pytest.raises(SettingsError, match="no task is called nobodys"):
        task_manager(("embedded", "nobodys"), None)
