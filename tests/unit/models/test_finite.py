"""entrypoint.models.finite: corrupt weights are found by name."""

import shutil
from pathlib import Path

import pytest

from entrypoint.cli import run
from entrypoint.errors import ModelError
from entrypoint.models.finite import check_finite


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("position", [0, 50_000, 99_999])
def test_a_shard_with_anything_but_numbers_is_named(
    tmp_path: Path, dtype: str, value: str, position: int
):
    import torch
    from safetensors.torch import save_file

    good = torch.linspace(-1, 1, 100_000, dtype=getattr(torch, dtype))
    bad = good.clone()
    bad[position] = float(value)
    whole = {"counts": torch.arange(9), "empty": torch.empty(0), "small": torch.ones(3)}
    save_file({"a": good, **whole}, tmp_path / "one.safetensors")
    save_file({"b": good, "c": bad}, tmp_path / "two.safetensors")
    check_finite(tmp_path, ("one.safetensors",))
    with pytest.raises(ModelError, match=r"two\.safetensors is corrupt: c holds NaN or infinity"):
        check_finite(tmp_path, ("one.safetensors", "two.safetensors"))


def test_5_no_command_starts_from_such_weights(
    tiny_model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][7] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model, output = ("--model", str(folder)), ("--output", str(tmp_path / "out"))
    for command in (
        ["sft", *model, "--data", str(rows), "--max-seq-len", "64", *output],
        ["eval", *model],
        ["quantize", *model, *output],
    ):
        assert run(command) == 5
        assert "model.norm.weight holds NaN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
