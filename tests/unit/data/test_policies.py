"""entrypoint.data.prepare: what happens to rows that a check has met."""

from pathlib import Path

import pytest

from entrypoint.errors import DataError, SettingsError
from tests.unit.data.sets import (
    lines,
    read,
    run,
    sft,
    turn,
)


def test_a_split_that_leaves_no_rows_on_one_side_is_refused(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([sft(1)]))
    with pytest.raises(DataError, match="leaves no evaluation rows"):
        run(path, tmp_path / "out", eval_fraction=1e-9)
    with pytest.raises(DataError, match="no row is left to train on"):
        run(path, tmp_path / "out", eval_fraction=0.999999)


def test_a_policy_says_what_happens_to_rows_that_a_check_has_met(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([sft(1), {"messages": [turn("user", "q")]}, sft(2), sft(1), sft(1)]))
    with pytest.raises(DataError, match=r"line 2.*\n.*roles=drop"):
        run(path, tmp_path / "out")
    kept = run(path, tmp_path / "kept", "roles=drop")
    assert kept.train.rows == 4
    assert kept.findings.by_check["roles"].count == 1
    duplicates = kept.findings.by_check["duplicates"]
    assert (duplicates.count, duplicates.examples[1]) == (2, f"{path}, line 5, as row 1")
    run(path, tmp_path / "dropped", "roles=drop", "duplicates=drop")
    assert read(tmp_path / "dropped" / "train.jsonl") == [sft(1), sft(2)]
    with pytest.raises(DataError, match="repeats an earlier row"):
        run(path, tmp_path / "out", "roles=drop", "duplicates=error")
    with pytest.raises(SettingsError, match="no check roels"):
        run(path, tmp_path / "out", "roels=drop")
    with pytest.raises(SettingsError, match="roles cannot be keep"):
        run(path, tmp_path / "out", "roles=keep")


def test_questions_on_both_sides_are_found(tmp_path: Path):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(lines([sft(1), sft(2)]))
    other = {"messages": [sft(2)["messages"][0], turn("assistant", "other")]}
    (folder / "eval.jsonl").write_bytes(lines([sft(3), other]))
    found = run(folder, tmp_path / "kept").findings.by_check["overlap"]
    assert found.examples == [f"{folder / 'eval.jsonl'}, line 2, as row 2"]
    assert run(folder, tmp_path / "dropped", "overlap=drop").evaluation.rows == 1


def test_a_broken_decoding_is_counted(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        lines([sft(1), {"messages": [turn("user", "na\ufffdve"), turn("assistant", "a")]}])
    )
    assert run(path, tmp_path / "out").findings.by_check["encoding"].count == 1
