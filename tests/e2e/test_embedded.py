"""The built-in model, written out for real."""

import json
import stat
from pathlib import Path

import pytest

from entrypoint.models.embedded.materialise import SHIPPED_CONFIG, embedded_folder, materialise
from entrypoint.models.source import load

pytestmark = pytest.mark.e2e


def test_the_real_model_answers(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Written out from the package, it is what its shipped card says, and knows a capital."""
    environ = {"TRAIN_CACHE": str(tmp_path)}
    materialise(embedded_folder(environ))
    # a bar is for a terminal
    assert "GGUF" not in capfd.readouterr().err
    folder = embedded_folder(environ)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) & 0o044
    assert json.loads((folder / "config.json").read_text()) == json.loads(
        SHIPPED_CONFIG.read_text()
    )
    load("embedded", environ)

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**ids, max_new_tokens=12, do_sample=False)[0][
        ids["input_ids"].shape[1] :
    ]
    assert "Paris" in tokenizer.decode(answer)

    before = (folder / "model.safetensors").stat().st_mtime_ns
    materialise(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
