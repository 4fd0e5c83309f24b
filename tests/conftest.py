"""Fixtures for all tests."""

import json
import os
from pathlib import Path

import pytest

from tests.tiny import write_tiny_model

if "PYTEST_XDIST_WORKER" in os.environ:
    # With as many workers as cores, threads of one wait for those of another: twice the CPU time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

AMBIENT = (
    "TRAIN_",
    "RANK",
    "LOCAL_",
    "WORLD_SIZE",
    "NODE_RANK",
    "MASTER_",
    "HF_",
    "AZURE_",
    "AZUREML_",
    "WANDB_",
    "MLFLOW_",
)


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what the machine's environment happens to say."""
    for name in list(os.environ):
        if name.startswith(AMBIENT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama-architecture model with two layers, and a chat tokenizer. Do not change it."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve training rows in the shape of messages."""
    path = tmp_path / "rows.jsonl"
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Please book {city} for Ada on {number} May 2027."},
                {"role": "assistant", "content": f'{{"place":"{city}","day":{number}}}'},
            ]
        }
        for number, city in enumerate(("Oslo", "Rome", "Kyoto", "Lima") * 3, start=1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
