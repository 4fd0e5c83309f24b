"""Command-line options as named values; every one has a TRAIN_<OPTION> variable."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from entrypoint import presets
from entrypoint.parameters import (
    ABOVE_ZERO,
    POSITIVE,
    CommaList,
    Condition,
    Number,
    Override,
)
from entrypoint.settings import (
    EMBEDDED,
    Device,
    Dtype,
    LoggerName,
    LoraTarget,
    Method,
    QuantizationMethod,
    Settings,
    Step,
)

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

DEFAULTS = {name: field.default for name, field in Settings.__dataclass_fields__.items()}


def option(name: str, *names: str, command: str = "", **arguments: Any) -> Callable[[F], F]:
    """A click option that is also the variable TRAIN_<NAME>.

    Args:
        command: makes it TRAIN_<COMMAND>_<NAME>, for a name that means another thing elsewhere.
    """
    positive = name.split("/")[0].strip("-").replace("-", "_")
    variable = "_".join(filter(None, ("TRAIN", command, positive))).upper()
    return click.option(name, *names, envvar=variable, show_envvar=True, **arguments)


model = option(
    "--model",
    default=EMBEDDED,
    show_default=True,
    metavar="REF",
    help="A model folder in Hugging Face format, ORG/NAME[@REVISION] on the model hub, or "
    "`embedded`: SmolLM2-135M-Instruct.",
)
checkpoint = option(
    "--model",
    default=EMBEDDED,
    show_default=True,
    metavar="REF",
    help="A run folder (its final model), a model folder in Hugging Face format, "
    "ORG/NAME[@REVISION] on the model hub, or `embedded`.",
)
data = option(
    "--data",
    default=EMBEDDED,
    show_default=True,
    metavar="REF",
    help="A file, folder or pattern of rows (JSON, CSV, Parquet, Arrow; packed too), - for "
    "standard input, ORG/NAME[:CONFIG][@REVISION] on the hub, or `embedded`.",
)
preset = option(
    "--preset",
    type=click.Choice(presets.NAMES),
    help="A set of options that scale with model and data, from recipes/presets. An option that "
    "is given by name wins over it.",
)
method = option(
    "--method",
    type=click.Choice(get_args(Method)),
    default=DEFAULTS["method"],
    show_default=True,
    help="Train a low-rank adapter (lora, dora), one beside weights in 4 bits (qlora), all weights "
    "(full), or either for an 8da4w copy (qat-lora, qat).",
)
lora_rank = option(
    "--lora-rank", type=POSITIVE, help="Rank of the adapter.  [default: 16]", metavar="RANK"
)
lora_alpha = option(
    "--lora-alpha",
    type=ABOVE_ZERO,
    metavar="ALPHA",
    help="The adapter's part is multiplied by alpha / rank.  [default: twice the rank]",
)
lora_dropout = option(
    "--lora-dropout",
    type=Number(min=0, max=1, max_open=True),
    metavar="SHARE",
    help="Share of the adapter's inputs that is dropped in training.  [default: 0]",
)
lora_targets = option(
    "--lora-targets",
    type=CommaList(get_args(LoraTarget)),
    default="",
    help="What has an adapter: q, v and output of attention; the MLP; the output head.  "
    "[default: attention,mlp]",
)
output = option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The run folder; must not hold a run yet.  [default: outputs/<objective>-<model>-<time>]",
)
epochs = option(
    "--epochs", type=POSITIVE, default=1, show_default=True, help="Passes over the rows."
)
max_steps = option(
    "--max-steps",
    type=POSITIVE,
    help="At most so many optimizer steps in all.  [default: all rows; 72 for the embedded data]",
)
batch_size = option(
    "--batch-size",
    type=POSITIVE,
    default=DEFAULTS["batch_size"],
    show_default=True,
    help="Rows per step of each process.",
)
lr = option(
    "--lr",
    type=ABOVE_ZERO,
    metavar="RATE",
    help="Peak learning rate.  [default: by method and model size]",
)
log_every = option(
    "--log-every",
    type=POSITIVE,
    default=DEFAULTS["log_every"],
    show_default=True,
    metavar="SECONDS",
    help="How often a line says how far training is, where there is no terminal for a bar.",
)
save_every = option(
    "--save-every",
    type=POSITIVE,
    default=DEFAULTS["save_every"],
    show_default=True,
    metavar="STEPS",
    help="How often a checkpoint is saved; one more is in the end.",
)
keep = option(
    "--keep",
    type=POSITIVE,
    default=DEFAULTS["keep"],
    show_default=True,
    metavar="COUNT",
    help="How many of the newest checkpoints are kept, beside the best by validation.",
)
grace = option(
    "--grace",
    type=POSITIVE,
    default=DEFAULTS["grace"],
    show_default=True,
    metavar="SECONDS",
    help="Time to save a checkpoint after Ctrl-C or SIGTERM.",
)
resume = option(
    "--resume",
    metavar="auto|PATH",
    help="Go on from the newest whole checkpoint in --output, or from nothing if there is none; "
    "or from that checkpoint, or that run folder's newest.",
)
eval_every = option(
    "--eval-every",
    type=POSITIVE,
    metavar="STEPS",
    help="How often the loss on eval.jsonl is computed.  [default: never]",
)
early_stop = option(
    "--early-stop",
    type=POSITIVE,
    metavar="COUNT",
    help="End after so many validation losses in a row that are not the lowest, and take the "
    "model that had it.",
)
max_seq_len = option(
    "--max-seq-len",
    type=POSITIVE,
    metavar="TOKENS",
    help="Longer rows are cut.  [default: 2048, or the model's context if shorter]",
)
log_to = option(
    "--log-to",
    type=CommaList(get_args(LoggerName)),
    default="",
    help="Where metrics go beside metrics.jsonl.  [default: mlflow if MLFLOW_TRACKING_URI is set, "
    "as in Azure ML; wandb if WANDB_API_KEY is]",
)
seed = option(
    "--seed",
    type=click.IntRange(min=0),
    default=DEFAULTS["seed"],
    show_default=True,
    help="Random seed.",
)
overrides = option(
    "--set",
    "overrides",
    multiple=True,
    type=Override(),
    metavar="KEY=VALUE",
    help="Set a key of the recipe (optimizer.weight_decay=0); +KEY=VALUE adds one. Repeatable.",
)
recipe = option(
    "--recipe",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A recipe template of your own (*.yaml.j2) instead of the shipped one.",
)
then = option(
    "--then",
    type=CommaList(get_args(Step)),
    default="",
    help="What follows training, in this order; eval scores the base and all models made by then.",
)
quantize_methods = option(
    "--quantize-method",
    "quantize_methods",
    type=CommaList(get_args(QuantizationMethod)),
    default="",
    help="Copies that --then quantize makes: see `train quantize`.  [default: 8da4w]",
)
tasks = option(
    "--tasks",
    type=CommaList(),
    default="",
    help="lm-eval tasks to evaluate on.  [default: the built-in data set's]",
)
tasks_folder = option(
    "--tasks-folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Task files of your own, in lm-eval's format.",
)
device = option(
    "--device",
    type=click.Choice(get_args(Device)),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
dtype = option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    default="auto",
    show_default=True,
    help="Number format; auto takes bf16 where the hardware multiplies it.",
)
nproc_per_node = option(
    "--nproc-per-node",
    type=POSITIVE,
    metavar="N",
    help="Train in so many processes on each node, each with a device of its own.  "
    "[default: one for each GPU]",
)
shared_storage = option(
    "--shared-storage",
    is_flag=True,
    help="All nodes see the cache and the inputs at the same place: only node 0 fetches them.",
)
limit = option(
    "--limit", type=POSITIVE, metavar="ROWS", help="Evaluate at most so many rows per task."
)
gates = option(
    "--gate",
    "gates",
    multiple=True,
    type=Condition(),
    metavar="CONDITION",
    help="What a score must meet, else the exit code is 8: 'exact_match>=base-0.01', "
    "'TASK/loss<=1.5'. Repeatable.",
)
fit_check = option(
    "--fit-check/--no-fit-check",
    default=DEFAULTS["fit_check"],
    show_default=True,
    help="Whether a run that cannot fit into memory is refused before it starts.",
)
dry_run = option(
    "--dry-run", is_flag=True, help="Print plan, recipe and command; write and start nothing."
)
as_json = option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result as JSON on standard output, all else on standard error.",
)
