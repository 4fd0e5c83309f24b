"""entrypoint.tune.checkpoints: whole, hashed, or not there."""

from pathlib import Path

import pytest
import torch

from entrypoint.errors import SettingsError
from entrypoint.tune import checkpoints

TENSORS = {"weight/a": torch.arange(6.0), "rng/0/cpu": torch.arange(5, dtype=torch.uint8)}


def save(folder: Path, *steps: int) -> list[Path]:
    return [checkpoints.save(folder, step, TENSORS, {"position": {"epoch": 1}}) for step in steps]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_read_is_what_was_saved(tmp_path: Path):
    (path,) = save(tmp_path, 7)
    tensors, facts = checkpoints.read(path)
    assert facts == {"step": 7, "position": {"epoch": 1}}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert names(path) == {"state.safetensors", "state.json", "manifest.json"}
    assert checkpoints.fault_of(path) is None


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_a_broken_one_is_passed_over_by_name(tmp_path: Path, name: str, harm: str):
    older, newer = save(tmp_path, 9, 10)
    content = (newer / name).read_bytes()
    if harm == "cut":
        (newer / name).write_bytes(content[: len(content) // 2])
    elif harm == "changed":
        (newer / name).write_bytes(content[:-3] + b"x" + content[-2:])
    else:
        (newer / name).unlink()
    said: list[str] = []
    assert checkpoints.find("auto", tmp_path, said.append) == older
    assert len(said) == 1
    assert str(newer) in said[0]
    with pytest.raises(SettingsError, match="not whole"):
        checkpoints.find(str(newer), tmp_path, said.append)


@pytest.mark.parametrize("call", ["save_file", "_flush"])
def test_a_save_that_is_cut_off_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    (before,) = save(tmp_path, 1)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, call, dies)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert names(tmp_path) == {"step_1", ".step_2.partial"}
    assert checkpoints.find("auto", tmp_path, print) == before
    save(tmp_path, 2)
    checkpoints.prune(tmp_path, keep=5, best=None)
    assert names(tmp_path) == {"step_1", "step_2"}


def test_the_newest_is_found_by_number(tmp_path: Path):
    save(tmp_path, 9, 10)
    for wanted in ("auto", str(tmp_path), str(tmp_path / "step_10")):
        found = checkpoints.find(wanted, tmp_path, print)
        assert found is not None
        assert found.name == "step_10"
    run = tmp_path / "run"
    run.mkdir()
    assert checkpoints.find("auto", run / "checkpoints", print) is None
    with pytest.raises(SettingsError, match="no whole checkpoint"):
        checkpoints.find(str(run), tmp_path, print)
    save(run / "checkpoints", 3)
    found = checkpoints.find(str(run), tmp_path, print)
    assert found == run / "checkpoints" / "step_3"


def test_the_best_outlives_the_newest(tmp_path: Path):
    save(tmp_path, 1, 2, 3, 4)
    checkpoints.prune(tmp_path, keep=2, best=1)
    assert names(tmp_path) == {"step_1", "step_3", "step_4"}
    checkpoints.prune(tmp_path, keep=1, best=4)
    assert names(tmp_path) == {"step_4"}
