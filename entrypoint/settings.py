"""What the user asked for: options and TRAIN_* variables, resolved once."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from entrypoint import gate
from entrypoint.errors import SettingsError

Objective = Literal["sft", "dpo", "kd"]
PreferenceLoss = Literal["sigmoid", "ipo", "hinge"]
Divergence = Literal["forward", "reverse"]
Method = Literal["lora", "full", "dora", "qlora", "qat", "qat-lora"]
LoggerName = Literal["tensorboard", "mlflow", "wandb", "none"]
LoraTarget = Literal["attention", "mlp", "output"]
Step = Literal["eval", "quantize"]
QuantizationMethod = Literal[
    "8da4w", "int8-weight-only", "int8-dynamic", "int4-weight-only", "fp8", "nf4"
]
ExportKind = Literal["hf", "peft", "gguf"]
GgufType = Literal["f16", "q8_0", "q4_0", "q4_1"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "fp32", "bf16"]

EMBEDDED = "embedded"
"""The name under which the built-in model and the built-in data set are known."""

OF_OBJECTIVE: dict[Objective, tuple[str, ...]] = {
    "sft": (),
    "dpo": ("loss", "beta", "label_smoothing", "precompute_reference"),
    "kd": ("teacher", "temperature", "alpha", "kl"),
}
"""Settings that mean something to one objective alone."""

POSITIVE = (
    "epochs", "max_steps", "batch_size", "lr", "max_seq_len", "limit",
    "nproc_per_node", "lora_rank", "lora_alpha", "beta", "temperature",
    "log_every", "save_every", "keep", "grace", "eval_every", "early_stop",
)  # fmt: skip


def foreign(objective: Objective) -> set[str]:
    """Settings that mean something to other objectives alone."""
    return {name for other, names in OF_OBJECTIVE.items() if other != objective for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One fine-tuning run as asked for; None means that the plan decides."""

    objective: Objective = "sft"
    model: str = EMBEDDED
    """A folder in Hugging Face format, ORG/NAME[@REVISION] on the hub, or `embedded`."""
    data: str = EMBEDDED
    """Files of rows, a data set of the hub, or `embedded`; see entrypoint.data.dataset."""
    loss: PreferenceLoss = "sigmoid"
    beta: float = 0.1
    """How strongly DPO holds on to the reference."""
    label_smoothing: float = 0.0
    """Share of DPO's pairs that is taken to be the wrong way round."""
    precompute_reference: bool = False
    teacher: str = EMBEDDED
    """What KD learns from: a model as `model` is named."""
    temperature: float = 1.0
    """Of KD: both models' logits are divided by it."""
    alpha: float = 0.5
    """Of KD: the share of the teacher in the loss; the rest is the labels'."""
    kl: Divergence = "forward"
    method: Method = "lora"
    lora_rank: int | None = None
    lora_alpha: float | None = None
    """The adapter's output is multiplied by alpha / rank."""
    lora_dropout: float | None = None
    lora_targets: tuple[LoraTarget, ...] = ()
    """What has an adapter; the plan decides when nothing is named."""
    output: Path | None = None
    """The run folder itself; it must not hold a run yet."""
    epochs: int = 1
    max_steps: int | None = None
    """Upper bound on optimizer steps over all epochs."""
    batch_size: int = 4
    """Rows per optimizer step."""
    lr: float | None = None
    """Peak learning rate."""
    log_every: int = 10
    """Seconds between lines about the progress, where there is no terminal."""
    save_every: int = 100
    """Steps between checkpoints."""
    keep: int = 2
    """Newest checkpoints that are kept."""
    grace: int = 25
    """Seconds that training has to save a checkpoint after a signal."""
    resume: str | None = None
    """`auto`, or the path of a checkpoint or of a run folder."""
    eval_every: int | None = None
    """Steps between looks at the loss on the held-out part; None for none."""
    early_stop: int | None = None
    """Looks without a lower loss after which training ends; None for never."""
    max_seq_len: int | None = None
    """Tokens after which a row is cut."""
    log_to: tuple[LoggerName, ...] = ()
    """What metrics go to beside metrics.jsonl; the environment decides when nothing is named."""
    seed: int = 42
    overrides: tuple[str, ...] = ()
    """`key=value` of the rendered recipe, as given to --set."""
    recipe: Path | None = None
    """A template of the user's own instead of the shipped one."""
    then: tuple[Step, ...] = ()
    quantize_methods: tuple[QuantizationMethod, ...] = ()
    """Of the copies that `quantize` makes; 8da4w when nothing is named."""
    tasks: tuple[str, ...] = ()
    """lm-eval tasks for `eval`; the built-in data has one of its own."""
    tasks_folder: Path | None = None
    gates: tuple[str, ...] = ()
    """Conditions on scores, as `exact_match>=base-0.01`: see entrypoint.gate."""
    nproc_per_node: int | None = None
    """Training processes of a node, each with its device."""
    shared_storage: bool = False
    """Whether all nodes have the cache and the inputs from one storage, at the same place."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    limit: int | None = None
    """Evaluate at most this many rows per task."""
    preset: str | None = None
    """Name of a set of options; see entrypoint.presets."""
    explicit: tuple[str, ...] = ()
    """Settings that were given by name, which a preset leaves alone."""
    fit_check: bool = True
    """Whether a run that cannot fit into memory is refused."""
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingsError(
                    f"{name.replace('_', '-')} must be a number greater than 0, not {value}",
                    where=f"--{name.replace('_', '-')} or TRAIN_{name.upper()}",
                )

        if self.resume == "auto" and self.output is None:
            raise SettingsError(
                "without the run's folder there is nothing to resume",
                where="--resume or TRAIN_RESUME",
                hint="name the run folder with --output",
            )
        for text in self.gates:
            gate.parse(text)
        if self.early_stop and not self.eval_every:
            raise SettingsError(
                "there is no validation loss to stop by",
                where="--early-stop or TRAIN_EARLY_STOP",
                hint="say with --eval-every how often to compute it",
            )

        if not 0 <= self.label_smoothing < 0.5 or (self.label_smoothing and self.loss != "sigmoid"):
            raise SettingsError(
                f"label smoothing is from 0 to below 0.5, and for the sigmoid loss; "
                f"it is {self.label_smoothing}, and the loss {self.loss}",
                where="--label-smoothing or TRAIN_LABEL_SMOOTHING",
            )
        # presets and recorded runs do not come by click
        if self.lora_dropout is not None and not 0 <= self.lora_dropout < 1:
            raise SettingsError(
                f"the share that is dropped is from 0 to below 1, not {self.lora_dropout}",
                where="--lora-dropout or TRAIN_LORA_DROPOUT",
            )
        if not 0 <= self.alpha <= 1:
            raise SettingsError(
                f"alpha is from 0 to 1, not {self.alpha}", where="--alpha or TRAIN_ALPHA"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest; without those of other objectives."""
        others = foreign(self.objective)
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
            if key not in others
        }
