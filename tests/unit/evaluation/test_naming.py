"""entrypoint.evaluation.naming: tasks that are there are found without lm-eval's index."""

from pathlib import Path

import pytest

from entrypoint import scoring
from entrypoint.errors import SettingsError
from entrypoint.evaluation import harness
from entrypoint.evaluation.naming import declared


def test_tasks_and_groups_of_ours_of_the_users_and_of_lm_eval_are_found(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("# task: commented\ntask: 'mine'  # its name\n")
    (tmp_path / "group.yaml").write_text("group: ours\ntask:\n- mine\n- listed\n")
    there = {"embedded", "mine", "ours", "truthfulqa_mc2", "mmlu"}
    assert declared({*there, "commented", "listed", "nobodys"}, tmp_path) == there


def test_only_what_is_not_found_so_is_looked_for_in_the_index(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def task_manager(tasks: tuple[str, ...], _: Path | None) -> None:
        asked.append(tasks)
        raise SettingsError("no task is called so")

    monkeypatch.setattr(harness, "task_manager", task_manager)
    scoring._check_names(("embedded", "truthfulqa_mc2"), None)
    assert asked == []
    with pytest.raises(SettingsError):
        scoring._check_names(("embedded", "nobodys"), None)
    assert asked == [("embedded", "nobodys")]
