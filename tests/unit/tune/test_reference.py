"""entrypoint.tune.reference: what is remembered of the reference, and when."""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from entrypoint.tune import compat

compat.apply()

from entrypoint.tune.reference import file_for, key_of, read, write  # noqa: E402
from tests.unit.tune.test_pairs import LONG, SHORT  # noqa: E402

KNOWN = {key_of(LONG): (-1.5, -2.25), key_of(SHORT): (0.0, -3.0)}


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "deep" / "known.safetensors"
    assert read(path) == {}
    write(path, KNOWN)
    assert read(path) == KNOWN
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_broken_file_knows_nothing(tmp_path: Path):
    path = tmp_path / "known.safetensors"
    write(path, KNOWN)
    path.write_bytes(path.read_bytes()[:-4])
    assert read(path) == {}


def test_a_pair_is_known_by_its_tokens_and_labels():
    assert key_of(LONG) == key_of(dict(reversed(LONG.items())))
    assert key_of(LONG) != key_of(SHORT)
    other = {**LONG, "chosen_labels": [-100, -100, 3]}
    assert key_of(other) != key_of(LONG)


def test_another_base_model_is_another_file(tmp_path: Path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    recipe = OmegaConf.create(
        {
            "checkpointer": {"checkpoint_dir": str(tmp_path), "checkpoint_files": [weights.name]},
            "model": {"_component_": "a.b", "num_layers": 2, "lora_rank": 8},
            "dtype": "fp32",
        }
    )
    assert isinstance(recipe, DictConfig)
    names = [file_for(tmp_path, recipe)]
    recipe.model.lora_rank = 16
    assert file_for(tmp_path, recipe) == names[0], "the adapter is no part of the reference"
    recipe.dtype = "bf16"
    names.append(file_for(tmp_path, recipe))
    os.utime(weights, ns=(1, 1))
    names.append(file_for(tmp_path, recipe))
    weights.write_bytes(b"22")
    os.utime(weights, ns=(1, 1))
    names.append(file_for(tmp_path, recipe))
    assert len(set(names)) == 4
