"""entrypoint.models.checkpoint: what --model of eval and quantize may name."""

import shutil
from pathlib import Path

import pytest

from entrypoint.errors import ModelError
from entrypoint.models.checkpoint import locate


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "run" / "final")
    shutil.copytree(tiny_model, tmp_path / "run" / "quantized" / "8da4w")
    (tmp_path / "run" / "manifest.json").write_text("{}")
    return tmp_path / "run"


def test_a_run_means_its_final_model(run: Path):
    found = locate(str(run), {})
    assert (found.folder, found.label, found.run.root) == (run / "final", "tuned", run)


def test_a_quantized_folder_knows_its_run(run: Path):
    found = locate(str(run / "quantized" / "8da4w"), {})
    assert (found.label, found.run.root) == ("8da4w", run)


def test_a_model_folder_belongs_to_no_run(tiny_model: Path):
    found = locate(str(tiny_model), {})
    assert (found.label, found.run) == ("tiny", None)


def test_a_run_that_did_not_finish(run: Path):
    shutil.rmtree(run / "final")
    with pytest.raises(ModelError, match="no final model"):
        locate(str(run), {})


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read"), ("{}", "no base model")])
def test_an_adapter_that_does_not_say_what_it_belongs_on(tmp_path: Path, text: str, message: str):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        locate(str(tmp_path), {})
