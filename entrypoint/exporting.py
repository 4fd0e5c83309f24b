"""`train export` from end to end: a checkpoint in, a folder out that others can load."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from entrypoint import launch
from entrypoint.collect import ADAPTER_FILES
from entrypoint.errors import ModelError, SettingsError
from entrypoint.export import card
from entrypoint.files import read_json, whole, write_json, write_text
from entrypoint.models.card import is_quantized, read_config
from entrypoint.models.checkpoint import Checkpoint, locate
from entrypoint.models.companions import README, licence
from entrypoint.models.embedded.materialise import LICENCE, embedded_folder
from entrypoint.noise import hide_loading_bars
from entrypoint.quantization.folder import size_bytes
from entrypoint.results import Told, nowhere
from entrypoint.run_folder import default_output
from entrypoint.settings import ExportKind, GgufType
from entrypoint.uploading import Destination, check_destination, upload

COPIED = ("*.json", "*.jinja", "*.safetensors", "*.model", "LICEN[SC]E*", "NOTICE*", "merges.txt")
"""What a model's folder is made of; anything else in it is not handed on."""
OUTPUT_OPTION = "--output or TRAIN_EXPORT_OUTPUT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The options of `train export`."""

    kind: ExportKind
    gguf_type: GgufType
    base: str | None
    output: Path | None
    push: str | None
    private: bool

    @property
    def name(self) -> str:
        """Of the folder."""
        return f"gguf-{self.gguf_type}" if self.kind == "gguf" else self.kind


def export(reference: str, asked: Asked, environ: Mapping[str, str], told: Told = nowhere) -> None:
    """Write the export, whole or not at all, and push it when that is asked for.

    Raises:
        SettingsError: the output exists, or a push that cannot work.
        ModelError: there is no such model, or it cannot be exported so.
    """
    console = Console(highlight=False, soft_wrap=True)
    destination = check_destination(asked.push, environ, private=asked.private)
    checkpoint = _fitting(locate(reference, environ, asked.base), asked)
    output = asked.output or _default_output(checkpoint, asked)
    if output.exists():
        raise SettingsError(
            f"{output} exists already", where=OUTPUT_OPTION, hint="give another folder"
        )
    check(checkpoint, asked)
    launch.check_room(output, needed_bytes(checkpoint, asked.kind), OUTPUT_OPTION)
    facts = gather(checkpoint, environ)
    with whole(output) as scratch:
        if asked.kind == "peft":
            write_adapter(checkpoint, scratch, facts)
        elif asked.kind == "hf":
            write_folder(checkpoint, scratch)
        else:
            write_gguf(checkpoint, scratch / _file_name(facts, asked), facts, asked)
        write_text(scratch / README, card.render(facts, asked.kind, _file_name(facts, asked)))
    console.print(f"export: {output}", markup=False)
    pushed = None
    if isinstance(destination, Destination):
        pushed = upload(destination, output, environ)
        console.print(f"pushed: {pushed}", markup=False)
    files = sorted(path.name for path in output.iterdir())
    told({"folder": str(output), "kind": asked.kind, "files": files, "pushed": pushed})


def _fitting(checkpoint: Checkpoint, asked: Asked) -> Checkpoint:
    """A run stands for its merged model, or for its adapter where that is asked for."""
    run = checkpoint.run
    if asked.kind != "peft" or checkpoint.adapter:
        return checkpoint
    if run is None or not run.adapter.is_dir():
        raise ModelError(
            "there is no adapter to export",
            where=checkpoint.folder,
            hint="give a run of --method lora, dora, qlora or qat-lora, or its adapter/; "
            "--to hf exports the whole model",
        )
    return Checkpoint(
        folder=checkpoint.folder, label=checkpoint.label, run=run, adapter=run.adapter
    )


def _default_output(checkpoint: Checkpoint, asked: Asked) -> Path:
    if checkpoint.run and checkpoint.folder == checkpoint.run.final:
        return checkpoint.run.root / "export" / asked.name
    return default_output("export", f"{checkpoint.label}-{asked.name}")


def check(checkpoint: Checkpoint, asked: Asked) -> None:
    """Refuse before any work what cannot be exported so.

    Raises:
        ModelError: a quantized model that has to be unquantized, or a family that has no GGUF.
    """
    quantized = is_quantized(checkpoint.folder)
    if quantized and (asked.kind == "gguf" or checkpoint.adapter):
        raise ModelError(
            "the model is quantized already, and what its weights were is lost",
            where=checkpoint.folder,
            hint="export the model that it was made from: the run's folder",
        )
    if asked.kind == "gguf":
        from entrypoint.export import gguf_file, vocabulary

        config = read_config(checkpoint.folder / "config.json")
        gguf_file.check(config, checkpoint.folder)
        vocabulary.read(_tokenizer(checkpoint), config["vocab_size"])


def needed_bytes(checkpoint: Checkpoint, kind: ExportKind) -> int:
    """Upper bound on what an export writes, with what it removes again."""
    if kind == "peft":
        return 0
    # an adapter's merged copy lies beside the GGUF file until that is written
    copies = 2 if kind == "gguf" and checkpoint.adapter else 1
    return copies * size_bytes(checkpoint.folder)


def _tokenizer(checkpoint: Checkpoint) -> Path:
    adapter = checkpoint.adapter
    own = adapter is not None and (adapter / "tokenizer.json").is_file()
    return adapter if own and adapter else checkpoint.folder


def gather(checkpoint: Checkpoint, environ: Mapping[str, str]) -> card.Facts:
    """What the model card says, from the run's manifest and result."""
    run = checkpoint.run
    manifest = (read_json(run.manifest) if run else None) or {}
    result = (read_json(run.result) if run else None) or {}
    base = manifest.get("model") or {}
    folder = Path(base.get("folder") or checkpoint.folder)
    found = licence(folder, {path.name for path in folder.iterdir()}) if folder.is_dir() else None
    if folder == embedded_folder(environ):
        found = LICENCE
    return card.Facts(
        name=run.root.name if run else checkpoint.label,
        licence=found,
        config=read_config(checkpoint.folder / "config.json"),
        manifest=manifest,
        result=result,
    )


def _file_name(facts: card.Facts, asked: Asked) -> str:
    return f"{facts.name}-{asked.gguf_type}.gguf"


def write_adapter(checkpoint: Checkpoint, folder: Path, facts: card.Facts) -> None:
    """Copy a PEFT adapter; the base model gets its public name where it has one."""
    adapter = checkpoint.adapter
    assert adapter is not None
    for path in adapter.iterdir():
        if path.name in ADAPTER_FILES or path.name.startswith(("token", "chat_template")):
            shutil.copyfile(path, folder / path.name)
    config = read_config(folder / ADAPTER_FILES[0])
    if facts.base:
        config["base_model_name_or_path"] = facts.base
    write_json(folder / ADAPTER_FILES[0], config)


def write_folder(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy a model's folder, or merge an adapter into its base."""
    if checkpoint.adapter:
        _merge(checkpoint, checkpoint.adapter, folder)
        return
    for pattern in COPIED:
        for path in checkpoint.folder.glob(pattern):
            shutil.copyfile(path, folder / path.name)


def _merge(checkpoint: Checkpoint, adapter: Path, folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hide_loading_bars()
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype="auto")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(_tokenizer(checkpoint)).save_pretrained(folder)


def write_gguf(checkpoint: Checkpoint, path: Path, facts: card.Facts, asked: Asked) -> None:
    """Write the one file; an adapter is merged first."""
    from entrypoint.export import gguf_file, vocabulary

    def write(folder: Path) -> None:
        config = read_config(folder / "config.json")
        gguf_file.write(
            folder,
            path,
            config,
            vocabulary.read(folder, config["vocab_size"]),
            asked.gguf_type,
            name=facts.name,
            licence=facts.licence,
        )

    _on_merged(checkpoint, path.parent, write)


def _on_merged(checkpoint: Checkpoint, beside: Path, call: Callable[[Path], None]) -> None:
    if checkpoint.adapter is None:
        call(checkpoint.folder)
        return
    with tempfile.TemporaryDirectory(prefix=".merged-", dir=beside.parent) as merged:
        _merge(checkpoint, checkpoint.adapter, Path(merged))
        call(Path(merged))
