"""entrypoint.evaluation.harness and the request that reaches it."""

import dataclasses
import os
from pathlib import Path

import pytest
from lm_eval import evaluator

from entrypoint import noise
from entrypoint.errors import SettingsError
from entrypoint.evaluation.harness import performance, task_manager, tokenizer_folder
from entrypoint.evaluation.model import Work
from entrypoint.evaluation.request import Request, Rows

REQUEST = Request(
    label="base",
    checkpoint=Path("/m"),
    tasks=("embedded",),
    rows=Rows(name="mine", path=Path("/rows.jsonl"), kind="sft", max_seq_len=64),
    device="cpu",
    dtype="fp32",
    output=Path("/o.json"),
    limit=3,
    stop=("\n",),
)


def test_a_request_survives_its_way_to_the_process():
    assert Request.from_json(REQUEST.to_json()) == REQUEST


def test_tasks_of_ours_of_the_users_and_of_nobody(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("task: mine\n")
    assert {"embedded", "mine"} <= set(task_manager(("embedded", "mine"), tmp_path).all_tasks)
    with pytest.raises(SettingsError, match="no task is called nobodys"):
        task_manager(("embedded", "nobodys"), None)


def test_tokens_of_all_processes_by_the_seconds_of_the_slowest():
    def one(tokens: int, seconds: float) -> tuple[dict[str, float], Work, int]:
        work = Work(generated_tokens=tokens, generation_seconds=seconds)
        return {"seconds": seconds, "cpu_seconds": seconds, "peak_bytes": tokens}, work, tokens

    found = performance([one(10, 1.0), one(30, 2.0)], "cpu")
    assert found["generated_tokens_per_second"] == 20
    assert found["scored_tokens_per_second"] is None
    assert (found["seconds"], found["cpu_seconds"]) == (2.0, 3.0)
    assert (found["peak_bytes"], found["rows_at_once"], found["processes"]) == (30, 30, 2)


def test_an_adapters_own_tokenizer_goes_before_its_base(tmp_path: Path):
    request = dataclasses.replace(REQUEST, adapter=tmp_path)
    assert tokenizer_folder(request) == REQUEST.checkpoint
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert tokenizer_folder(request) == tmp_path


def test_git_is_not_asked_outside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # the image has none
    git = tmp_path / "bin/git"
    git.parent.mkdir()
    git.write_text("#!/bin/sh\necho 1a2b3c\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(git.parent), prepend=os.pathsep)
    monkeypatch.setattr(evaluator, "get_git_commit_hash", evaluator.get_git_commit_hash)
    noise.hide_complaint_of_git()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert evaluator.get_git_commit_hash() is None
    (tmp_path / ".git").mkdir()
    assert evaluator.get_git_commit_hash() == "1a2b3c"
