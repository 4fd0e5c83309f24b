"""Values of the pipeline's stages, filled with what a test does not care about."""

import dataclasses
from pathlib import Path
from typing import Any

from entrypoint.data.dataset import Dataset
from entrypoint.data.writing import RowFile
from entrypoint.models.card import Model
from entrypoint.plan import Plan, make_plan
from entrypoint.settings import Settings
from entrypoint.topology import World

WORLD = World(device="cpu", devices=1, dtype="fp32", cores=2)
MODEL = Model(
    reference="embedded",
    folder=Path("/models/m"),
    architecture="LlamaForCausalLM",
    family="Llama",
    model_type="LLAMA3_2",
    builder="torchtune.models.llama3_2.llama3_2",
    arguments={"vocab_size": 512, "num_layers": 2},
    shards=("model-1.safetensors", "model-2.safetensors"),
    parameters=135_000_000,
    context=8192,
)


def dataset(rows: int = 1_000, reference: str = "embedded", held_out: int = 0) -> Dataset:
    train = RowFile(path=Path("/data/train.jsonl"), rows=rows, sha256="0" * 64, longest=100)
    evaluation = dataclasses.replace(train, path=Path("/data/eval.jsonl"), rows=held_out)
    return Dataset(reference=reference, train=train, evaluation=evaluation if held_out else None)


def plan(
    *,
    rows: int = 1_000,
    held_out: int = 0,
    model: Model = MODEL,
    loggers: tuple[Any, ...] = (),
    **settings: Any,
) -> Plan:
    given = Settings(**settings)
    teacher = dataclasses.replace(model, reference="ORG/TEACHER", folder=Path("/models/teacher"))
    return make_plan(
        given,
        WORLD,
        model,
        dataset(rows, given.data, held_out),
        root=Path("/outputs/run"),
        template=Path("/recipes/sft.yaml.j2"),
        loggers=loggers,
        teacher=teacher if given.objective == "kd" else None,
    )
