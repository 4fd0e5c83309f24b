"""Tunecask's recipe: `tune run entrypoint.tune.recipe --config FILE`.

Reads the keys of torchtune's recipes and builds from them what the training loop takes. Keys of our
own: objective, packing_window, fused_layers, frozen_dtype, save_every_n_steps, keep_checkpoints,
resume, validation, reference_folder and teacher_dtype.
"""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from entrypoint import allocator, noise
from entrypoint.tune import agent, compat

if __name__ == "__main__":
    agent.die_with_parent()
    # Ctrl-C before training has begun: no traceback from amid the imports
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# torchrun starts this module by itself, and what follows warns when it is imported
noise.silence()
compat.apply()

import torch  # noqa: E402
from omegaconf import DictConfig, ListConfig, OmegaConf  # noqa: E402
from torchtune import config, modules, training  # noqa: E402
from torchtune.datasets import ConcatDataset  # noqa: E402

from entrypoint.errors import ExitCode, Interrupted, SettingsError, TrainError  # noqa: E402
from entrypoint.tune import checkpoints, worlds  # noqa: E402
from entrypoint.tune.batches import Schedule  # noqa: E402
from entrypoint.tune.loop import Habits, Loop  # noqa: E402
from entrypoint.tune.methods import (  # noqa: E402
    Method,
    convert_frozen,
    full_weights,
    method_of,
)
from entrypoint.tune.metrics import MetricStream  # noqa: E402
from entrypoint.tune.objectives import building  # noqa: E402
from entrypoint.tune.stopping import Stop, listening  # noqa: E402
from entrypoint.tune.validation import Validation  # noqa: E402
from entrypoint.tune.worlds import Ranks  # noqa: E402

NOT_HERE = {
    "optimizer_in_bwd": "the optimizer runs after the backward pass",
    "resume_from_checkpoint": "write resume: auto, or --resume auto",
    "dataset.packed": "write packing_window: 2048, the tokens of a window",
    "fake_quant_after_n_steps": "quantization-aware training rounds from the first step",
    "profiler.enabled": "profile one of torchtune's own recipes",
}
"""Keys of torchtune's recipes that would do nothing if they were true, and what to do."""

ALIKE_S, ORPHANED_S = 3.0, 40.0
"""How long a process that has failed waits for being ended because of another one, before it says
what it knows: of a failure that all have alike, and of a failure elsewhere."""


@config.parse  # type: ignore[untyped-decorator]
def main(recipe: DictConfig) -> None:
    """Train as the recipe says, and end with Tunecask's exit code."""
    ranks = worlds.join(recipe.device)
    with listening() as stop:
        try:
            train(recipe, ranks, stop)
        except TrainError as error:
            # mostly all processes fail alike: the first one says why, and ends the others
            agreed = isinstance(error, Interrupted)
            if ranks.leads or not (agreed or stop.awaited(ALIKE_S)):
                # of what was asked for, `train` says what to do next
                said = error.what if agreed else f"Error: {error}"
                print(said, file=sys.stderr, flush=True)
            if agreed:
                worlds.leave()
            sys.exit(int(error.exit_code))
        except RuntimeError as error:
            if ranks.size == 1 or not worlds.is_loss_of_contact(error):
                raise
            # the one that failed says why, and whoever started it ends this one too
            if not stop.awaited(ORPHANED_S):
                print(f"rank {ranks.rank} lost contact with the others", file=sys.stderr)
            sys.exit(ExitCode.TRAINING)
    worlds.leave()


def train(recipe: DictConfig, ranks: Ranks, stop: Stop) -> None:
    """Build, resume, train, and save the final weights.

    Raises:
        TrainError: see `Loop`; SettingsError when a key asks for what this recipe lacks.
    """
    _refuse(recipe, ranks)
    noise.hide_passing_files()
    stream = config.instantiate(recipe.metric_logger) if ranks.leads else None
    with stream or nullcontext():
        if stream:
            stream.log_config(recipe)
        checkpointer = config.instantiate(recipe.checkpointer, should_load_recipe_state=False)
        method = method_of(recipe)
        loop = build(recipe, ranks, stop, method, checkpointer, stream)
        if wanted := recipe.get("resume"):
            _resume(loop, wanted)
        loop.run()
        loop.load_best()
        allocator.give_back()  # what steps took is of no use to copies of weights
        with allocator.giving_back():
            if _frozen_dtype(recipe):
                convert_frozen(loop.model, training.get_dtype(recipe.dtype, device=ranks.device))
            weights = full_weights(loop.model, ranks)
            if ranks.leads:
                artifacts = method.artifacts(dict(weights))
                checkpointer.save_checkpoint(artifacts, epoch=recipe.epochs - 1)
        # torchrun gives processes that end early 300 s to wait for the others
        ranks.total(0)


def _resume(loop: Loop, wanted: str) -> None:
    """Go on from the checkpoint that is wanted; without one, make the run's first step."""
    found = None
    if loop.ranks.leads:
        found = checkpoints.find(wanted, loop.habits.checkpoints, print)
    # all processes go on from the same one
    path = loop.ranks.of_the_leader(found)
    if path is None:
        loop.start_from(0)
        return
    loop.resume(path)
    if loop.ranks.leads:
        print(f"resumed after step {loop.position.step} from {path}", flush=True)


def build(
    recipe: DictConfig,
    ranks: Ranks,
    stop: Stop,
    method: Method,
    checkpointer: Any,
    stream: MetricStream | None,
) -> Loop:
    """Everything that the loop works with, in the order that torchtune's recipes draw their random
    numbers in."""
    # the same adapters in every process; torchtune's own function adds the rank
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, ranks, method, checkpointer)
    tokenizer = config.instantiate(recipe.tokenizer)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = config.instantiate(recipe.optimizer, trained)
    objective = building.objective_of(recipe, model, checkpointer, ranks)
    rows = _rows(recipe.dataset, tokenizer)
    schedule = Schedule(
        rows=len(rows),
        rows_per_step=recipe.batch_size * recipe.gradient_accumulation_steps * ranks.size,
        shuffle=recipe.shuffle,
        max_steps=recipe.get("max_steps_per_epoch"),
    )
    if not schedule.steps:
        raise SettingsError(
            f"{schedule.rows} rows do not fill one step of {schedule.rows_per_step}",
            where="--batch-size",
            hint="lower it, or add rows",
        )
    scheduler = config.instantiate(
        recipe.lr_scheduler,
        optimizer,
        num_training_steps=recipe.epochs * schedule.steps,
        last_epoch=-1,
    )
    layout = building.layout_of(recipe, model, objective, tokenizer.pad_id)
    looks = recipe.get("validation")
    held_out: Any = _rows(looks.dataset, tokenizer) if looks else None
    if recipe.get("reference_folder"):
        rows, held_out = building.with_reference(
            recipe, rows, held_out, schedule, objective, layout, ranks, stop
        )
    validation = None
    if looks:
        validation = Validation(
            rows=held_out,
            every=looks.every_n_steps,
            patience=looks.get("early_stop"),
            layout=layout,
        )
    output = Path(recipe.output_dir)
    clip = recipe.get("clip_grad_norm")
    # dropout differs between processes, and only in a world of several
    torch.manual_seed(recipe.seed + ranks.rank) if ranks.size > 1 else None
    return Loop(
        model=model,
        objective=objective,
        optimizer=optimizer,
        scheduler=scheduler,
        rows=rows,
        schedule=schedule,
        layout=layout,
        validation=validation,
        habits=Habits(
            epochs=recipe.epochs,
            clip_grad_norm=None if clip is None else float(clip),
            log_every=recipe.get("log_every_n_steps", 1),
            say_every=recipe.get("log_every_seconds", 10),
            save_every=recipe.get("save_every_n_steps"),
            keep=recipe.get("keep_checkpoints", 1),
            checkpoints=output,
            logs=Path(recipe.metric_logger.get("log_dir", output)),
            seed=recipe.seed,
            method=str(method),
        ),
        ranks=ranks,
        stop=stop,
        stream=stream,
        activations=training.get_act_offloading_ctx_manager(
            model, recipe.get("enable_activation_offloading", False)
        ),
    )


def build_model(recipe: DictConfig, ranks: Ranks, method: Method, checkpointer: Any) -> Any:
    """The model with its base weights, trained weights chosen, spread over the processes."""
    dtype = training.get_dtype(recipe.dtype, device=ranks.device)
    with training.set_default_dtype(dtype), method.place(ranks):
        model = method.build(recipe.model)
    method.prepare(model, checkpointer.load_checkpoint()[training.MODEL_KEY], ranks)
    if name := _frozen_dtype(recipe):
        convert_frozen(model, training.get_dtype(name, device=ranks.device))
    if recipe.get("compile"):
        training.compile_model(model, verbose=False)
    if recipe.get("enable_activation_checkpointing"):
        training.set_activation_checkpointing(
            model, auto_wrap_policy={modules.TransformerSelfAttentionLayer}
        )
    return worlds.spread(model, ranks)


def _rows(dataset: DictConfig | ListConfig, tokenizer: Any) -> Any:
    if isinstance(dataset, ListConfig):
        return ConcatDataset([config.instantiate(part, tokenizer) for part in dataset])
    return config.instantiate(dataset, tokenizer)


def _refuse(recipe: DictConfig, ranks: Ranks) -> None:
    for key, instead in NOT_HERE.items():
        parent, _, name = key.rpartition(".")
        node = recipe.get(parent) if parent else recipe
        if OmegaConf.is_dict(node) and node.get(name):
            raise SettingsError(f"{key} is not for this recipe", where="the recipe", hint=instead)
    if frozen := _frozen_dtype(recipe):
        if frozen != "fp32":
            raise SettingsError(
                f"frozen_dtype is fp32 or the run's own format, and not {frozen}",
                where="the recipe",
                hint="leave it out",
            )
        if not (_is_plain_lora(recipe) and ranks.size == 1):
            raise SettingsError(
                "frozen_dtype is for LoRA without dropout, with fused_layers, in one process",
                where="the recipe",
                hint="leave it out",
            )
    if recipe.get("enable_activation_offloading") and (
        recipe.device == "cpu" or not recipe.get("enable_activation_checkpointing")
    ):
        raise SettingsError(
            "enable_activation_offloading needs a GPU and enable_activation_checkpointing",
            where="the recipe",
        )


def _frozen_dtype(recipe: DictConfig) -> str | None:
    """Of the weights that an adapter is trained beside; None for the run's own."""
    named = recipe.get("frozen_dtype")
    return None if named in (None, recipe.dtype) else str(named)


def _is_plain_lora(recipe: DictConfig) -> bool:
    """Whether all adapted layers are computed by `tune/gradients.py`."""
    model = recipe.model
    other = model.get("use_dora") or model.get("quantize_base") or model.get("lora_dropout")
    plain = "lora_rank" in model and recipe.get("fused_layers")
    return bool(plain and not (other or recipe.get("quantizer")))


if __name__ == "__main__":
    main()
