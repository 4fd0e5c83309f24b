"""Every decision of a run, made before anything is done. Pure: no effect, no clock, no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint import objectives
from entrypoint.data.dataset import Dataset
from entrypoint.errors import DataError, SettingsError
from entrypoint.methods import TRAITS, quantizer, trained_parameters
from entrypoint.methods import check as check_method
from entrypoint.methods import model_arguments as method_arguments
from entrypoint.models.card import BYTES_PER_ELEMENT, Model
from entrypoint.models.companions import NATIVE
from entrypoint.models.tokenizers import CHAT_TOKENIZER
from entrypoint.run_folder import RunFolder
from entrypoint.schemes import of_run
from entrypoint.settings import EMBEDDED, LoggerName, Method, Objective, Settings
from entrypoint.topology import World

EMBEDDED_STEPS = 72
"""Optimizer steps on the built-in data unless --max-steps or --epochs says otherwise: enough to
learn its task, and minutes instead of a quarter of an hour on two CPU cores."""

RECIPE = "entrypoint.tune.recipe"
"""What `tune run` runs."""

PEAK_LR = {"adapter": 2e-3, "full": 1e-4}
"""Peak learning rates at 135 million parameters; see `default_lr`."""

OPTION_OF_KEY = {
    "epochs": "--epochs",
    "max_steps_per_epoch": "--max-steps",
    "batch_size": "--batch-size",
    "optimizer.lr": "--lr",
    "log_every_seconds": "--log-every",
    "save_every_n_steps": "--save-every",
    "keep_checkpoints": "--keep",
    "resume": "--resume",
    "validation.every_n_steps": "--eval-every",
    "validation.early_stop": "--early-stop",
    "validation.dataset.data_files": "--data",
    "seed": "--seed",
    "model.lora_rank": "--lora-rank",
    "model.lora_alpha": "--lora-alpha",
    "model.lora_dropout": "--lora-dropout",
    "model.use_dora": "--method",
    "model.quantize_base": "--method",
    "quantizer": "--method",
    "device": "--device",
    "dtype": "--dtype",
    "tokenizer.max_seq_len": "--max-seq-len",
    "dataset.data_files": "--data",
    "checkpointer.checkpoint_dir": "--model",
    "checkpointer.checkpoint_files": "--model",
    "checkpointer.output_dir": "--output",
}
"""Keys of a recipe that the plan decides, and the option that each follows. A recipe that says
otherwise would train something else than the plan shows and the manifest records."""

LONGEST_ROW = 2048
"""Default of --max-seq-len, in tokens, for models whose context is not shorter."""

LEAST_WINDOW = 2048
"""Tokens that short rows are laid together to: larger matrix products are faster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will do."""

    settings: Settings
    world: World
    model: Model
    dataset: Dataset
    teacher: Model | None
    folder: RunFolder
    recipe: str
    """Name of the recipe that runs, for `tune run`."""
    template: Path
    epochs: int
    steps_per_epoch: int
    disk_bytes: int
    """Upper bound of what the run writes."""
    variables: dict[str, Any]
    """What the template is rendered with."""

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.epochs * self.steps_per_epoch


def make_plan(
    settings: Settings,
    world: World,
    model: Model,
    dataset: Dataset,
    root: Path,
    template: Path,
    loggers: tuple[LoggerName, ...] = (),
    teacher: Model | None = None,
) -> Plan:
    """Decide what `settings` left open.

    Args:
        root: the run folder, absolute.
        template: the recipe template to render.
        loggers: what metrics go to beside metrics.jsonl.
        teacher: the model that KD learns from.

    Raises:
        DataError: fewer rows than one batch.
        SettingsError: a sequence length that the model does not have, validation without
            held-out rows, a run folder within the model's, or methods for copies that are not made.
    """
    max_seq_len = settings.max_seq_len or min(LONGEST_ROW, model.context)
    if max_seq_len > model.context:
        raise SettingsError(
            f"the model's context is {model.context} tokens ({model.context_bound}), "
            f"shorter than {max_seq_len}",
            where="--max-seq-len or TRAIN_MAX_SEQ_LEN",
            hint="leave it out to take the model's own",
        )
    if settings.eval_every and dataset.evaluation is None:
        raise SettingsError(
            "there are no held-out rows to compute a validation loss on",
            where="--eval-every or TRAIN_EVAL_EVERY",
            hint="give --data a folder with train.jsonl and eval.jsonl",
        )
    epochs, steps_per_epoch = schedule(settings, dataset, world.ranks)
    if root.is_relative_to(model.folder):
        raise SettingsError(
            "the run folder lies within the model's",
            where="--output or TRAIN_OUTPUT",
            hint=f"give a folder outside of {model.folder}",
        )
    folder = RunFolder(root=root)
    metric_logger = "WandBLogger" if "wandb" in loggers else "DiskLogger"
    check_method(settings, model)
    adapter = TRAITS[settings.method].adapter
    variables = {
        # the names of the original tutorial
        "train_path": str(dataset.train.path),
        "log_dir": str(folder.logs),
        "model_dir": str(model.folder),
        "model_output_dir": str(folder.checkpoints),
        "metric_logger": metric_logger,
        # ours
        "loggers": list(loggers),
        "model": {
            "_component_": model.lora_builder if adapter else model.builder,
            **model.arguments,
            # no row is longer, and rotary tables of the whole context can take gigabytes
            "max_seq_len": max_seq_len,
            **method_arguments(settings),
        },
        "quantizer": quantizer(settings.method),
        "model_type": model.model_type,
        "tokenizer": {**tokenizer(model), "max_seq_len": max_seq_len},
        "checkpoint_files": list(model.shards),
        "max_seq_len": max_seq_len,
        # a window holds the longest row there can be
        "packing_window": max(max_seq_len, LEAST_WINDOW),
        "log_every_seconds": settings.log_every,
        "save_every": settings.save_every,
        "keep": settings.keep,
        "resume": resumed(settings),
        "eval_path": str(dataset.evaluation.path) if dataset.evaluation else None,
        "eval_every": settings.eval_every,
        "early_stop": settings.early_stop,
        "epochs": epochs,
        "max_steps_per_epoch": steps_per_epoch,
        "warmup_steps": warmup(epochs * steps_per_epoch),
        "batch_size": settings.batch_size,
        "lr": settings.lr or default_lr(settings.method, model.parameters, settings.objective),
        "seed": settings.seed,
        "device": world.device,
        "dtype": world.dtype,
        "frozen_dtype": None,
        **objectives.variables(settings, model, teacher, max_seq_len, folder),
    }
    return Plan(
        settings=settings,
        world=world,
        model=model,
        dataset=dataset,
        teacher=teacher,
        folder=folder,
        recipe=RECIPE,
        template=template,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        disk_bytes=disk_bytes(settings, model, world, epochs * steps_per_epoch),
        variables=variables,
    )


def schedule(settings: Settings, dataset: Dataset, processes: int = 1) -> tuple[int, int]:
    """Epochs and steps per epoch; their product is at most --max-steps.

    A recipe knows a bound per epoch only, so a bound over all epochs that they do not divide
    evenly is rounded down. The last, incomplete batch of an epoch is dropped, as torchtune's
    recipes do.
    """
    rows_per_step = settings.batch_size * processes
    whole_epoch = dataset.train.rows // rows_per_step
    if not whole_epoch:
        raise DataError(
            f"{dataset.train.rows} rows do not fill one batch of {rows_per_step}",
            where=dataset.train.path,
            hint="lower --batch-size or add rows",
        )
    bound = settings.max_steps
    if bound is None and settings.data == EMBEDDED and settings.epochs == 1:
        bound = EMBEDDED_STEPS
    if bound is None:
        return settings.epochs, whole_epoch
    epochs = min(settings.epochs, math.ceil(bound / whole_epoch))
    return epochs, min(whole_epoch, bound // epochs)


def decided(plan: Plan) -> dict[str, Any]:
    """Dotted key of a recipe -> the value that the plan gives it, for every key it decides."""
    values = plan.variables
    names = {
        "optimizer.lr": "lr",
        "tokenizer.max_seq_len": "max_seq_len",
        "dataset.data_files": "train_path",
        "save_every_n_steps": "save_every",
        "keep_checkpoints": "keep",
        "validation.every_n_steps": "eval_every",
        "validation.early_stop": "early_stop",
        "validation.dataset.data_files": "eval_path",
        "checkpointer.checkpoint_dir": "model_dir",
        "checkpointer.checkpoint_files": "checkpoint_files",
        "checkpointer.output_dir": "model_output_dir",
    }
    of_model = {f"model.{name}": value for name, value in values["model"].items()}
    common = {
        key: of_model.get(key) if key.startswith("model.") else values[names.get(key, key)]
        for key in OPTION_OF_KEY
    }
    return common | objectives.decided(plan.settings, values)


def option_of_key(settings: Settings) -> Mapping[str, str]:
    """OPTION_OF_KEY, and the keys of the objective."""
    return {**OPTION_OF_KEY, **objectives.OPTIONS[settings.objective]}


def tokenizer(model: Model) -> dict[str, str]:
    """The recipe's tokenizer: the model's own chat template, or torchtune's way of writing."""
    if model.native_tokenizer is None:
        return {"_component_": CHAT_TOKENIZER, "path": str(model.folder)}
    return {
        "_component_": "entrypoint.tune.native_tokenizer.NativeTokenizer",
        "component": model.native_tokenizer,
        "path": str(model.folder / NATIVE),
    }


def warmup(steps: int) -> int:
    """Steps of linear warm-up: a tenth of the run, at most 100."""
    return min(100, steps // 10)


def default_lr(method: Method, parameters: int, objective: Objective = "sft") -> float:
    """Peak learning rate: falls with the square root of the model's size, as width does."""
    peak = PEAK_LR["adapter" if TRAITS[method].adapter else "full"]
    scaled = peak * objectives.LR_SHARE[objective] * math.sqrt(135e6 / max(parameters, 135e6))
    return float(f"{scaled:.2g}")


def resumed(settings: Settings) -> str | None:
    """What the recipe resumes from: `auto`, a path without a working directory, or nothing."""
    if settings.resume in (None, "auto"):
        return settings.resume
    return str(Path(settings.resume).expanduser().absolute())


def disk_bytes(settings: Settings, model: Model, world: World, steps: int) -> int:
    """Upper bound of what the run writes: the weights, quantized copies, each in two forms that are
    at most as large, and the checkpoints there can be at a time, each of the trained weights and
    the optimizer's two moments. A quarter of the weights is for the adapter, logs and scores."""
    weights = model.parameters * BYTES_PER_ELEMENT[world.dtype]
    checkpoint = 3 * trained_parameters(settings, model) * BYTES_PER_ELEMENT[world.dtype]
    # while the newest is written, the oldest is still there
    saved = min(settings.keep + 1, math.ceil(steps / settings.save_every))
    best = 1 if settings.eval_every else 0
    copies = len(of_run(settings))
    return weights * (1 + 2 * copies) + weights // 4 + checkpoint * (saved + best)
