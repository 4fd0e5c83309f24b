"""scripts.aml.models: what a download leaves behind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from entrypoint.errors import ModelError
from scripts.aml import models


def workspace(name: str) -> Any:
    """A workspace whose model has one file of that name, where Azure's SDK puts it."""

    def download(model: str, version: str, download_path: str) -> None:
        file = Path(download_path) / model / "final" / name
        file.parent.mkdir(parents=True)
        file.write_text("{}")

    return SimpleNamespace(models=SimpleNamespace(download=download))


def test_of_a_downloaded_model_only_its_folder_is_left(tmp_path: Path):
    folder = tmp_path / "outputs" / "rows-1"
    assert models.download(workspace("config.json"), "rows", "1", folder) == folder
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert list(folder.parent.iterdir()) == [folder]


def test_what_is_no_model_leaves_nothing(tmp_path: Path):
    with pytest.raises(ModelError, match=r"rows:1 has no config\.json"):
        models.download(workspace("notes.txt"), "rows", "1", tmp_path / "rows-1")
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_be_fetched_whole_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fetch(name: str, path: Path) -> None:
        if name == "b":
            raise OSError("no network")
        path.write_text(name)

    place = SimpleNamespace(names=lambda: ["a", "b"], fetch=fetch)
    monkeypatch.setattr(models.blobs, "place", lambda *_: place)
    output = SimpleNamespace(path="azureml://datastores/x/paths/y")
    ml = SimpleNamespace(
        jobs=SimpleNamespace(get=lambda _: SimpleNamespace(outputs={"run": output}))
    )
    with pytest.raises(OSError, match="no network"):
        models.download_run(ml, "job", tmp_path / "run")
    assert not list(tmp_path.iterdir())
    place.names = lambda: ["a"]
    assert models.download_run(ml, "job", tmp_path / "run") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
