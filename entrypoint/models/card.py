"""A model's facts, from config.json and the headers of its weight files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.errors import ModelError
from entrypoint.models.families import FAMILIES
from entrypoint.models.tensors import Shape, count

BYTES_PER_ELEMENT = {"fp32": 4, "bf16": 2, "fp16": 2}
TORCH_DTYPE = {"fp32": "float32", "bf16": "bfloat16"}
"""torch's and transformers' names of the number formats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Everything that a recipe needs to know of a model."""

    reference: str
    folder: Path
    architecture: str
    family: str
    model_type: str
    """torchtune's name for the conversion between its weights and Hugging Face's."""
    builder: str
    """Import path of torchtune's builder; its LoRA variant has `lora_` before the name."""
    arguments: Mapping[str, Any]
    """The builder's keyword arguments but max_seq_len."""
    shards: tuple[str, ...]
    parameters: int
    """Tied weights counted once."""
    context: int
    """Longest sequence, in tokens."""
    context_bound: str = "max_position_embeddings"
    """The key of config.json that limits the context."""
    dtype: str | None = None
    """Number format of the weights: by their headers, or as config.json names it."""
    licence: str | None = None
    chat_template: str | None = None
    """The file that has it."""
    tokenizer: str | None = None
    """The file that the tokenizer is made from."""
    native_tokenizer: str | None = None
    """Import path of torchtune's tokenizer, for a model that has only a tokenizer.model."""
    tensors: Mapping[str, Shape] = field(default_factory=dict, repr=False)
    """Name -> shape of every weight in Hugging Face's naming."""

    @property
    def lora_builder(self) -> str:
        module, name = self.builder.rsplit(".", 1)
        return f"{module}.lora_{name}"


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file of a model or adapter, such as config.json, as a dict.

    Raises:
        ModelError: it is missing or not JSON.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"the model folder has no {path.name}",
            where=path.parent,
            hint="give a folder in Hugging Face format: config.json, weights, tokenizer.json",
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}", where=path) from error
    if not isinstance(config, dict):
        raise ModelError(f"{path.name} is not a JSON object", where=path)
    return config


def is_quantized(folder: Path) -> bool:
    """Whether config.json describes a quantization."""
    return "quantization_config" in read_config(folder / "config.json")


def describe(
    reference: str, folder: Path, config: Mapping[str, Any], shards: tuple[str, ...]
) -> Model:
    """The card of a model, from its config.json.

    Raises:
        ModelError: the family is not supported, or config.json describes something that the
            builder would not honour.
    """
    where = folder / "config.json"
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in FAMILIES:
        raise ModelError(
            f"the architecture {architecture} is not supported; {', '.join(FAMILIES)} are",
            where=where,
            hint="the README lists what is supported by now",
        )
    try:
        family = FAMILIES[architecture](config)
        parameters = count(family.tensors)
    except ModelError as error:
        raise ModelError(error.what, where=where, hint=error.hint) from error
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise ModelError(f"config.json cannot be understood: {error!r}", where=where) from error
    return Model(
        reference=reference,
        folder=folder,
        architecture=architecture,
        family=family.name,
        model_type=family.model_type,
        builder=family.builder,
        arguments=family.arguments,
        tensors=family.tensors,
        shards=shards,
        parameters=parameters,
        dtype=config.get("dtype") or config.get("torch_dtype"),
        context=family.context,
        context_bound=family.bound,
    )
