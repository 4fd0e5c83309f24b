"""From a recipe's keys to its objective, and to the layout of the rows that it takes."""

import functools
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune import config, training
from torchtune.config._utils import _get_component_from_path
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from entrypoint.errors import SettingsError
from entrypoint.tune import frozen
from entrypoint.tune.batches import Layout, Packed, Padded, Schedule
from entrypoint.tune.fused import fuse
from entrypoint.tune.loss import LabelledCrossEntropy
from entrypoint.tune.objectives import Objective
from entrypoint.tune.objectives.dpo import DirectPreference
from entrypoint.tune.objectives.kd import Distillation
from entrypoint.tune.objectives.sft import SupervisedFineTuning
from entrypoint.tune.packing import attend_by_document
from entrypoint.tune.pairs import PackedPairs, PaddedPairs
from entrypoint.tune.reference import ReferenceCache, file_for
from entrypoint.tune.stopping import Stop
from entrypoint.tune.worlds import Ranks

COLLATE = {
    "sft": "torchtune.data.padded_collate_sft",
    "dpo": "torchtune.data.padded_collate_dpo",
    "kd": "torchtune.data.padded_collate_sft",
}
"""Objective -> torchtune's function that its recipe pads rows with."""


def objective_of(recipe: DictConfig, model: Any, checkpointer: Any, ranks: Ranks) -> Objective:
    """What a recipe's `objective` says, SFT unless it does; keys are those of torchtune's recipes.

    A reference or a teacher that differs from the trained model only by its adapters is that model
    with adapters off; any other is a second model in memory.

    Raises:
        SettingsError: it says something else.
    """
    loss = config.instantiate(recipe.loss)
    adapted = "lora_rank" in recipe.model
    match name_of(recipe):
        case "dpo":
            # precomputed log-probabilities are those of the model before its first step
            keeps = not adapted and not recipe.get("reference_folder")
            reference = _second(recipe.model, checkpointer, recipe, ranks) if keeps else model
            return DirectPreference(model, loss, reference)
        case "kd":
            teacher = model
            if recipe.get("teacher_model"):
                reader = config.instantiate(recipe.teacher_checkpointer)
                teacher = _second(recipe.teacher_model, reader, recipe, ranks)
            elif not adapted:
                raise SettingsError(
                    "all weights are trained, so the model cannot be its own teacher",
                    where="teacher_model",
                    hint="give the recipe a teacher_model and a teacher_checkpointer",
                )
            divergence = config.instantiate(recipe.kd_loss)
            return Distillation(model, teacher, loss, divergence, recipe.kd_ratio)
        case _:
            return SupervisedFineTuning(model, loss)


def name_of(recipe: DictConfig) -> str:
    """The recipe's objective.

    Raises:
        SettingsError: there is no such one.
    """
    name = str(recipe.get("objective", "sft"))
    if name not in COLLATE:
        raise SettingsError(
            f"there is no objective {name}", where="the recipe", hint=f"{', '.join(COLLATE)} are"
        )
    return name


def layout_of(recipe: DictConfig, model: Any, objective: Any, pad_id: int) -> Layout:
    """How rows become batches: end to end in windows, or padded as torchtune does.

    The models are made ready for them."""
    if recipe.get("fused_layers"):
        for one in models_of(objective, model):
            fuse(one)
    pairs = name_of(recipe) == "dpo"
    if window := recipe.get("packing_window"):
        by_document = True
        for decoder in models_of(objective, model):
            # torchtune refuses sequences longer than one row, and a window has several
            decoder.max_seq_len = max(window, decoder.max_seq_len * (2 if pairs else 1))
            # both are asked with the same masks
            by_document &= attend_by_document(decoder)
        # torchtune's losses take logits of all tokens
        labelled = pairs or isinstance(objective.loss, LabelledCrossEntropy)
        packed = Packed(window, by_document, labelled)
        return PackedPairs(packed) if pairs else packed
    collate = _get_component_from_path(recipe.get("collate_fn", COLLATE[name_of(recipe)]))
    padding = {"padding_idx": pad_id, "ignore_idx": CROSS_ENTROPY_IGNORE_IDX}
    bound = functools.partial(collate, **padding)
    return PaddedPairs(recipe.batch_size, bound) if pairs else Padded(recipe.batch_size, bound)


def models_of(objective: Any, model: Any) -> list[Any]:
    """The trained model, and the second one that the objective asks, if there is one."""
    asked = getattr(objective, "reference", None) or getattr(objective, "teacher", None)
    return [model] if asked is None or asked is model else [model, asked]


def with_reference(
    recipe: DictConfig,
    rows: Any,
    held_out: Any,
    schedule: Schedule,
    objective: Any,
    layout: Layout,
    ranks: Ranks,
    stop: Stop,
) -> tuple[Any, Any]:
    """Rows, training and held-out, that know the reference's log-probabilities.

    Only those that the schedule comes to are computed. The model must have its base weights yet.

    Raises:
        Interrupted: a signal came; what is computed so far is kept.
    """
    path = file_for(Path(recipe.reference_folder), recipe)
    cache = ReferenceCache(path, objective.reference_log_probs, layout, ranks, stop)
    trained = {
        int(row)
        for epoch in range(recipe.epochs)
        for row in schedule.order(epoch)[: schedule.rows_per_epoch]
    }
    known = cache.referenced(rows, trained)
    return known, held_out and cache.referenced(held_out, range(len(held_out)))


def _second(model: DictConfig, checkpointer: Any, recipe: DictConfig, ranks: Ranks) -> Any:
    dtype = training.get_dtype(recipe.get("teacher_dtype") or recipe.dtype, device=ranks.device)
    return frozen.build(model, checkpointer, dtype, ranks)
