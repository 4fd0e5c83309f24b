"""Every method in a world of two processes, where frozen weights are spread too."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from entrypoint.data.source import EMBEDDED_FOLDER
from tests.e2e.test_loop import ONE_THREAD, assert_close
from tests.recipes import losses, metrics, recipe, train
from tests.tiny import write_tiny_model

pytestmark = pytest.mark.e2e

METHODS = ("dora", "qlora", "qat", "qat-lora")
SEVERAL = Path(__file__).with_name("several.py")


def in_two_processes(configs: dict[Path, Any]) -> None:
    paths = []
    for folder, config in configs.items():
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / "recipe.yaml")
        paths[-1].write_text(OmegaConf.to_yaml(config))
    ended = subprocess.run(
        (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(SEVERAL), *map(str, paths)),
        env=ONE_THREAD | {"PYTHONPATH": str(SEVERAL.parents[2])},
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_two_processes_learn_as_one_by_every_method(tmp_path: Path):
    # sizes that NF4's default blocks divide in halves too, so that the blocks are the same
    model = write_tiny_model(tmp_path / "model", hidden=256)
    given = {"data": str(EMBEDDED_FOLDER), "max_steps": 3, "save_every": 1, "keep": 9}
    alone = {}
    for method in METHODS:
        config = recipe(model, tmp_path / f"{method}-1", method=method, batch_size=4, **given)
        alone[method] = train(config)
    halved = {
        tmp_path / f"{method}-2": recipe(
            model, tmp_path / f"{method}-2", method=method, batch_size=2, **given
        )
        for method in METHODS
    }
    takes_over = tmp_path / "qlora-1-2"
    halved[takes_over] = recipe(
        model, takes_over, method="qlora", batch_size=2, **given,
        resume=str(tmp_path / "qlora-1" / "checkpoints" / "step_2"),
    )  # fmt: skip
    in_two_processes(halved)
    for method in METHODS:
        # a rounded number in the middle of two may go either way
        close = 2e-3 if method.startswith("qat") else 1e-5
        together = metrics(halved[tmp_path / f"{method}-2"])
        assert losses(together) == pytest.approx(losses(alone[method]), abs=close), method
        if close < 1e-3:
            assert_close(tmp_path / f"{method}-1", tmp_path / f"{method}-2")
    (last,) = losses(metrics(halved[takes_over]))
    assert last == pytest.approx(losses(alone["qlora"])[2], abs=1e-5)
