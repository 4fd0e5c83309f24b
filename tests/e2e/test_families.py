"""`train sft` on families whose builders are ours, by torchtune's real recipes."""

import json
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.e2e.starting import Train
from tests.tiny import VOCABULARY, write_tokenizer

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("kind", ["gemma2", "phi4-mini", "qwen3"])
def test_a_family_trains_and_transformers_loads_the_result(
    kind: str, rows: Path, tmp_path: Path, train_here: Train
):
    from transformers import AutoModelForCausalLM

    folder = write_checkpoint(tmp_path / kind, kind, vocab_size=VOCABULARY)
    write_tokenizer(folder)
    run = tmp_path / "run"
    inputs = ("--model", str(folder), "--data", str(rows), "--output", str(run))
    code, said = train_here("sft", *inputs, "--max-steps", "2", "--max-seq-len", "64")
    assert code == 0, said
    result = json.loads((run / "result.json").read_text())
    assert result["artifacts"]["adapter"] == "adapter"
    _, info = AutoModelForCausalLM.from_pretrained(run / "final", output_loading_info=True)
    assert not any(info.values())
