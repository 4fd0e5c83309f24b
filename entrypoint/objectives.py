"""What each objective adds to a run: its rows, its loss, and the other model that it asks. Pure."""

from collections.abc import Mapping
from typing import Any

from entrypoint.data.shapes import Task
from entrypoint.errors import SettingsError
from entrypoint.methods import TRAITS
from entrypoint.models.card import Model
from entrypoint.run_folder import RunFolder
from entrypoint.settings import Objective, Settings

TASKS: Mapping[Objective, tuple[Task, ...]] = {
    "sft": ("sft", "text"),
    "dpo": ("preference",),
    "kd": ("sft", "text"),
}
"""What the rows may be for."""

LR_SHARE: Mapping[Objective, float] = {"sft": 1.0, "dpo": 0.1, "kd": 1.0}
"""Learning rates as a share of SFT's: preferences are a matter of smaller steps."""

OPTIONS: Mapping[Objective, Mapping[str, str]] = {
    "sft": {},
    "dpo": {
        "loss.beta": "--beta",
        "loss.gamma": "--beta",
        "loss.label_smoothing": "--label-smoothing",
        "reference_folder": "--precompute-reference",
    },
    "kd": {
        "teacher_checkpointer.checkpoint_dir": "--teacher",
        "teacher_checkpointer.checkpoint_files": "--teacher",
        "kd_ratio": "--alpha",
        "kd_loss.temperature": "--temperature",
        "kd_loss.direction": "--kl",
    },
}
"""Keys of an objective's recipe that the plan decides, and the option that each follows."""


def variables(
    settings: Settings, model: Model, teacher: Model | None, max_seq_len: int, folder: RunFolder
) -> dict[str, Any]:
    """What the objective's template is rendered with, beside what all have.

    Raises:
        SettingsError: rows may be longer than the teacher's context.
    """
    match settings.objective:
        case "dpo":
            cache = str(folder.reference) if settings.precompute_reference else None
            return {"preference_loss": preference_loss(settings), "reference_folder": cache}
        case "kd":
            assert teacher is not None
            return _kd(settings, model, teacher, max_seq_len)
        case _:
            return {}


def preference_loss(settings: Settings) -> dict[str, Any]:
    """The recipe's `loss`: torchtune's where it has one."""
    match settings.loss:
        case "sigmoid":
            return {
                "_component_": "torchtune.rlhf.loss.DPOLoss",
                "beta": settings.beta,
                "label_smoothing": settings.label_smoothing,
            }
        case "hinge":
            return {"_component_": "torchtune.rlhf.loss.RSOLoss", "gamma": settings.beta}
        case "ipo":
            return {
                "_component_": "entrypoint.tune.objectives.dpo.IPOLoss",
                "beta": settings.beta,
            }


def _kd(settings: Settings, model: Model, teacher: Model, max_seq_len: int) -> dict[str, Any]:
    if max_seq_len > teacher.context:
        raise SettingsError(
            f"the teacher's context is {teacher.context} tokens, shorter than {max_seq_len}",
            where="--max-seq-len or TRAIN_MAX_SEQ_LEN",
            hint=f"give --max-seq-len {teacher.context}",
        )
    second = {"_component_": teacher.builder, **teacher.arguments, "max_seq_len": max_seq_len}
    return {
        # a student's base needs no second copy: it is the student with its adapter off
        "teacher_model": None if is_own_teacher(settings, model, teacher) else second,
        "teacher_dir": str(teacher.folder),
        "teacher_files": list(teacher.shards),
        "teacher_type": teacher.model_type,
        "kd_ratio": settings.alpha,
        "kd_loss": {
            "_component_": "entrypoint.tune.objectives.kd.LabelledDivergence",
            "temperature": settings.temperature,
            "direction": settings.kl,
        },
    }


def is_own_teacher(settings: Settings, model: Model, teacher: Model | None) -> bool:
    """Whether the teacher is in memory already, as the student's base."""
    traits = TRAITS[settings.method]
    # a fake-quantized layer has its adapter in its weight when it is rounded
    off = traits.adapter and not traits.fake_quantized
    return teacher is not None and teacher.folder == model.folder and off


def second_model(settings: Settings, model: Model, teacher: Model | None) -> Model | None:
    """Another model that is in memory and asked while this one learns: a reference or teacher."""
    adapter = TRAITS[settings.method].adapter
    if settings.objective == "dpo" and not (adapter or settings.precompute_reference):
        return model
    if settings.objective == "kd" and not is_own_teacher(settings, model, teacher):
        return teacher
    return None


def decided(settings: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> the plan's value, of the keys in OPTIONS.

    Args:
        values: the plan's variables.
    """
    nodes = {
        "loss": values.get("preference_loss", {}),
        "kd_loss": values.get("kd_loss", {}),
        "teacher_checkpointer": {
            "checkpoint_dir": values.get("teacher_dir"),
            "checkpoint_files": values.get("teacher_files"),
        },
    }
    found = {}
    for key in OPTIONS[settings.objective]:
        node, _, name = key.rpartition(".")
        place = nodes[node] if node else values
        if name in place:
            found[key] = place[name]
    return found


def said(settings: Settings, model: Model, teacher: Model | None) -> dict[str, str]:
    """What the plan tells of the objective, by a word of up to seven letters."""
    match settings.objective:
        case "dpo":
            smoothed = f", label smoothing {settings.label_smoothing:g}"
            once = "computed once, before training"
            adapter = TRAITS[settings.method].adapter
            again = "the base, adapter off" if adapter else "a copy of the base"
            return {
                "loss": f"DPO, {settings.loss}, beta {settings.beta:g}"
                + (smoothed if settings.label_smoothing else "")
                + f"; reference: {once if settings.precompute_reference else again}",
            }
        case "kd":
            assert teacher is not None
            own = is_own_teacher(settings, model, teacher)
            return {
                "teacher": f"{teacher.reference}: {teacher.parameters / 1e6:,.0f} M parameters, "
                + ("the student's own base, adapter off" if own else f"{teacher.folder}"),
                "loss": f"{settings.alpha:g} x {settings.kl} KL from the teacher "
                f"(temperature {settings.temperature:g}) + {1 - settings.alpha:g} x cross-entropy",
            }
        case _:
            return {}
