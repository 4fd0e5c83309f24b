"""entrypoint.export.card: what the README of an export says."""

from pathlib import Path
from typing import Any

import yaml

from entrypoint.export.card import Facts, render

MANIFEST: dict[str, Any] = {
    "settings": {"objective": "sft", "method": "lora", "lora_rank": None, "epochs": 2, "seed": 42},
    "model": {"reference": "ORG/NAME@v1", "folder": "/home/ada/cache/x", "parameters": 135_000_000},
    "data": {
        "reference": "ORG/DATA",
        "train": {"rows": 1000, "sha256": "abc"},
        "evaluation": {"rows": 200, "sha256": "def"},
    },
    "versions": {"tunecask": "0.1.0", "torch": "2.13.0"},
}
RESULT: dict[str, Any] = {
    "loss": {"first": 2.0, "last": 0.25},
    "evaluation": {"base": {"t/exact_match": 0.1}, "tuned": {"t/exact_match": 0.925}},
}


def facts(**changes: Any) -> Facts:
    values = {
        "name": "run", "licence": "mit", "config": {"architectures": ["LlamaForCausalLM"]},
        "manifest": MANIFEST, "result": RESULT,
    }  # fmt: skip
    return Facts(**values | changes)


def head(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_head_is_what_the_hub_reads():
    assert head(render(facts(), "hf", "")) == {
        "license": "mit", "base_model": "ORG/NAME", "library_name": "transformers",
        "pipeline_tag": "text-generation", "tags": ["tunecask", "lora"],
    }  # fmt: skip


def test_settings_data_scores_and_versions_are_the_manifests():
    text = render(facts(), "gguf", "run-f16.gguf")
    for line in (
        "| method | lora |", "| training | 1000 | `abc` |", "| held out | 200 | `def` |",
        "| training loss, last step | 0.250 |", "| t/exact_match, tuned | 0.925 |",
        "| torch | 2.13.0 |", "llama-cli -m run-f16.gguf", "ORG/NAME (LlamaForCausalLM, 135 M",
    ):  # fmt: skip
        assert line in text
    assert "lora_rank" not in text
    assert "/home/ada" not in text


def test_paths_of_this_machine_are_not_told(tmp_path: Path):
    model = MANIFEST["model"] | {"reference": str(tmp_path)}
    data = MANIFEST["data"] | {"reference": str(tmp_path / "..")}
    text = render(facts(manifest=MANIFEST | {"model": model, "data": data}), "peft", "")
    assert str(tmp_path) not in text
    assert tmp_path.name in text
    assert "base_model" not in head(text)


def test_a_model_that_no_run_has_made_has_a_short_card():
    text = render(facts(manifest={}, result={}, licence=None), "hf", "")
    assert "exported with Tunecask" in text
    assert "## Training" not in text
    assert "license" not in head(text)
