"""entrypoint.files: what appears whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from entrypoint.errors import SettingsError
from entrypoint.files import BLOCK_BYTES, read_json, sha256_of, whole, write_json, write_text


def test_a_folder_appears_when_all_of_it_is_written(tmp_path: Path):
    target = tmp_path / "deep" / "made"
    with whole(target) as scratch:
        (scratch / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    # not for its owner alone, as temporary folders are
    assert target.stat().st_mode == (tmp_path / "deep").stat().st_mode
    assert [path.name for path in target.parent.iterdir()] == ["made"]


def test_nothing_is_left_of_a_folder_that_was_not_finished(tmp_path: Path):
    def fail() -> None:
        with whole(tmp_path / "made") as scratch:
            (scratch / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_file_is_hashed_block_by_block(tmp_path: Path):
    content = bytes(range(256)) * (BLOCK_BYTES // 256) + b"rest"
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_json_that_is_not_there_is_none(tmp_path: Path):
    write_json(tmp_path / "a" / "b.json", {"é": 1})
    assert read_json(tmp_path / "a" / "b.json") == {"é": 1}
    assert read_json(tmp_path / "none.json") is None
    for text in ("{", "[]"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(SettingsError, match=r"other\.json cannot be read"):
            read_json(tmp_path / "other.json")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_two_processes_that_write_the_same_file_do_not_write_into_each_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "shared.json"
    replace, others = Path.replace, []

    def meanwhile(scratch: Path, target: Path) -> Path:
        if not others:
            others.append(os.getpid() + 1)
            monkeypatch.setattr(os, "getpid", lambda: others[0])
            write_text(path, "theirs")
        return replace(scratch, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    write_text(path, "ours")
    assert path.read_text() == "ours"
    assert [found.name for found in tmp_path.iterdir()] == ["shared.json"]


def test_a_text_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path):
    write_text(tmp_path / "file", "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file", "\ud800")
    assert (tmp_path / "file").read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
