"""The model card of an export: what a run's manifest says, in words. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from entrypoint import hub
from entrypoint.settings import EMBEDDED, ExportKind

EMBEDDED_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
SETTINGS = (
    "objective", "method", "lora_rank", "lora_alpha", "epochs", "max_steps", "batch_size", "lr",
    "max_seq_len", "seed",
)  # fmt: skip
"""Those that say how the model came about."""

LOADING: dict[ExportKind, str] = {
    "hf": """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```""",
    "peft": """\
```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")
```""",
    "gguf": """\
```console
$ llama-cli -m FILE
```""",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a model."""

    name: str
    licence: str | None
    """Of the base model."""
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    """Of the run; empty for a model that no run has made."""
    result: Mapping[str, Any]

    @property
    def base(self) -> str | None:
        """The base model's name on the hub; None for a folder, whose path is nobody's business."""
        reference = (self.manifest.get("model") or {}).get("reference")
        if reference == EMBEDDED:
            return EMBEDDED_NAME
        if reference and not Path(reference).expanduser().exists() and hub.parse(reference):
            return str(reference).partition("@")[0]
        return None


def render(facts: Facts, kind: ExportKind, file: str) -> str:
    """README.md, with the head that the hub reads.

    Args:
        file: name of the GGUF file, if that is what is exported.
    """
    head = {
        "license": facts.licence,
        "base_model": facts.base,
        "library_name": {"hf": "transformers", "peft": "peft", "gguf": "gguf"}[kind],
        "pipeline_tag": "text-generation",
        "tags": ["tunecask", *([facts.manifest["settings"]["method"]] if facts.manifest else [])],
    }
    known = {key: value for key, value in head.items() if value}
    sections = [
        f"---\n{yaml.safe_dump(known, sort_keys=False)}---",
        f"# {facts.name}",
        "\n".join(_origin(facts)),
        "## Loading\n\n" + LOADING[kind].replace("FILE", file),
        *_sections(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _origin(facts: Facts) -> Iterator[str]:
    architecture = (facts.config.get("architectures") or ["a model"])[0]
    if not facts.manifest:
        yield f"{architecture}, exported with Tunecask."
        return
    model = facts.manifest["model"]
    base = facts.base or Path(model["reference"]).name
    yield f"{base} ({architecture}, {model['parameters'] / 1e6:,.0f} M parameters), fine-tuned "
    yield f"with Tunecask {facts.manifest['versions'].get('tunecask')}."
    if not facts.licence:
        yield "The base model names no licence."


def _sections(facts: Facts) -> Iterator[str]:
    manifest = facts.manifest
    if not manifest:
        return
    settings = {name: manifest["settings"].get(name) for name in SETTINGS}
    yield "## Training\n\n" + _table(
        ("setting", "value"),
        [(name, value) for name, value in settings.items() if value is not None],
    )
    parts = [("training", manifest["data"]["train"]), ("held out", manifest["data"]["evaluation"])]
    reference = manifest["data"]["reference"]
    shown = Path(reference).name if Path(reference).exists() else reference
    yield f"## Data\n\n{shown}\n\n" + _table(
        ("part", "rows", "SHA-256"),
        [(name, part["rows"], f"`{part['sha256']}`") for name, part in parts if part],
    )
    if loss := facts.result.get("loss"):
        rows: list[tuple[object, ...]] = [
            ("training loss, first step", f"{loss['first']:.3f}"),
            ("training loss, last step", f"{loss['last']:.3f}"),
        ]
        for label, scores in facts.result.get("evaluation", {}).items():
            rows += [(f"{name}, {label}", f"{score:.4g}") for name, score in scores.items()]
        yield "## Results\n\n" + _table(("metric", "value"), rows)
    yield "## Made with\n\n" + _table(("package", "version"), list(manifest["versions"].items()))


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
