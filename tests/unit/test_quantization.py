"""entrypoint.quantization: what is refused before any work."""

import json
from pathlib import Path

import pytest

from entrypoint.errors import ModelError, SettingsError
from entrypoint.quantization import check, size_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, hidden_size=64, intermediate_size=128)
    return tmp_path


def write(folder: Path, **config: object) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def test_a_good_model_passes(folder: Path):
    check(folder, folder / "out")


def test_an_output_that_exists_is_refused(folder: Path):
    (folder / "out").mkdir()
    with pytest.raises(SettingsError, match="exists already"):
        check(folder, folder / "out")


def test_a_quantized_model_is_refused(folder: Path):
    write(folder, quantization_config={})
    with pytest.raises(ModelError, match="quantized already"):
        check(folder, folder / "out")


def test_sizes_that_the_group_does_not_divide_are_refused(folder: Path):
    write(folder, hidden_size=72, intermediate_size=128)
    with pytest.raises(ModelError, match="hidden_size 72 is not a multiple of the group size 32"):
        check(folder, folder / "out")


def test_size_counts_weights_only(folder: Path):
    (folder / "a.safetensors").write_bytes(b"12345")
    (folder / "b.safetensors").write_bytes(b"123")
    assert size_bytes(folder) == 8
