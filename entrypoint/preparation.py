"""`train prepare` from end to end: a source in, a checked folder out."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import OmegaConf
from rich.console import Console

from entrypoint.data import report
from entrypoint.data.chat import Chat, TrainOn
from entrypoint.data.checks import Policy, policies
from entrypoint.data.dataset import Dataset, find
from entrypoint.data.folder import DESCRIPTION, Request
from entrypoint.data.prepare import Inspector, check_free, prepare
from entrypoint.data.shapes import PRESETS, Preset
from entrypoint.data.source import short_name
from entrypoint.data.tokenizer import texts_of
from entrypoint.data.tokens import TokenInspector
from entrypoint.data.trained import check_trained
from entrypoint.errors import ModelError, SettingsError
from entrypoint.files import write_json
from entrypoint.meeting import meeting
from entrypoint.models import source as model_source
from entrypoint.models.companions import FAST
from entrypoint.models.embedded.materialise import cache_folder
from entrypoint.models.tokenizers import CHAT_TOKENIZER, CONVERT
from entrypoint.noise import hide_loading_bars
from entrypoint.plan import LONGEST_ROW
from entrypoint.progress import say
from entrypoint.results import Told, nowhere
from entrypoint.run_folder import default_output
from entrypoint.settings import EMBEDDED

EVAL_FRACTION = 0.1
CHECK = 1
"""Of the look at a run's rows; goes up when it finds more, so that all are looked at again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The options of `train prepare`."""

    data: str
    preset: str | None
    split: str | None
    format: str | None
    columns: Mapping[str, str]
    eval_fraction: float | None
    max_rows: int | None
    shuffle: bool
    seed: int
    policies: tuple[str, ...]
    output: Path | None
    model: str
    no_tokens: bool
    max_seq_len: int | None
    preview: int
    near_duplicates: float | None
    check_leakage: tuple[str, ...]
    tasks_folder: Path | None


def prepare_one(asked: Asked, environ: Mapping[str, str], told: Told = nowhere) -> None:
    """Prepare a data set and report on it.

    Raises:
        SettingsError: options that contradict each other, or a folder that is taken.
        DataError, ModelError: what is named is not there, or something is wrong with it.
    """
    preset = PRESETS[asked.preset] if asked.preset else None
    if preset and asked.data != EMBEDDED:
        raise SettingsError("--preset names the data itself", where="--data", hint="leave one out")
    if asked.preview and asked.no_tokens:
        raise SettingsError("a preview shows tokens", where="--preview", hint="drop --no-tokens")
    reference = preset.data if preset else asked.data
    checks = policies(asked.policies)
    folder = asked.output or default_output("prepare", short_name(asked.preset or reference))
    folder = folder.absolute()
    check_free(folder)
    with TemporaryDirectory(prefix="tunecask-") as scratch:
        split = asked.split or (preset.split if preset else None)
        source = find(reference, split, environ, Path(scratch))
        request = request_of(asked, preset, checks, has_evaluation=source.has_evaluation)
        others = inspectors_of(asked)
        tokens = None if asked.no_tokens else token_inspector(asked, environ)
        inspectors = (*others, tokens) if tokens else others
        prepared = prepare(source, request, folder, inspectors)
    statistics = tokens.statistics() if tokens else None
    described = report.as_dict(json.loads((folder / DESCRIPTION).read_text("utf-8")), statistics)
    write_json(folder / DESCRIPTION, described)
    console = Console(highlight=False, soft_wrap=True)
    report.show(prepared, statistics, console)
    if tokens and asked.preview:
        report.preview(tokens.shown, tokens.chat, tokens.max_seq_len, console)
    console.print(f"folder  {folder}", markup=False)
    told({"folder": str(folder), **described})


def request_of(
    asked: Asked, preset: Preset | None, checks: Mapping[str, Policy], *, has_evaluation: bool
) -> Request:
    """What to make of the source: as asked for, or as the preset has it. Pure.

    Args:
        has_evaluation: whether the source keeps held-out rows apart, so that none are split off.
    """
    fraction = asked.eval_fraction
    if fraction is None:
        default = preset.eval_fraction if preset else EVAL_FRACTION
        fraction = 0.0 if has_evaluation else default
    return Request(
        format=asked.format or (preset.format if preset else None),
        columns=asked.columns or (preset.columns if preset else {}),
        eval_fraction=fraction,
        max_rows=asked.max_rows,
        shuffle=asked.shuffle,
        seed=asked.seed,
        policies=checks,
    )


def inspectors_of(asked: Asked) -> tuple[Inspector, ...]:
    """What looks at the rows beside the count of their tokens; each imports what is heavy."""
    found: list[Inspector] = []
    if asked.near_duplicates is not None:
        from entrypoint.data.near import NearDuplicates

        found.append(NearDuplicates(asked.near_duplicates))
    if asked.check_leakage:
        from entrypoint.data.leakage import Leakage
        from entrypoint.evaluation.documents import texts

        hide_loading_bars()
        found.append(Leakage(texts(asked.check_leakage, asked.tasks_folder)))
    return tuple(found)


def check_rows(
    dataset: Dataset, model: Path, recipe: str, environ: Mapping[str, str] | None = None
) -> None:
    """Find before training what a run would otherwise learn nothing or the wrong thing from.

    Args:
        model: the model's folder.
        recipe: the rendered YAML; with a tokenizer of its own nothing is known of its rows.
        environ: names the cache, where rows that were found good are remembered.

    Raises:
        DataError: a row's answers are all cut away by --max-seq-len.
        ModelError: no loss mask can be made with the model's chat template.
    """
    tokenizer = OmegaConf.create(recipe).tokenizer
    if tokenizer._component_ != CHAT_TOKENIZER:
        return
    train_on, limit = tokenizer.get("train_on", "all"), tokenizer.max_seq_len
    memory = None
    if environ is not None:
        looked_at = (dataset.train.sha256, dataset.task, train_on, limit, *texts_of(model))
        key = hashlib.sha256(repr((CHECK, *looked_at)).encode()).hexdigest()
        memory = cache_folder(environ) / "checked" / f"{key}.json"
    if memory and memory.is_file():
        cut = int(json.loads(memory.read_text("utf-8"))["cut"])
    else:
        chat = chat_of(model, environ or os.environ, train_on)
        cut = check_trained(dataset.train.path, chat, limit, dataset.task)
        if memory:
            with suppress(OSError):  # then it is looked at again the next time
                memory.parent.mkdir(parents=True, exist_ok=True)
                write_json(memory, {"cut": cut})
    if cut:
        say(
            f"{cut:,} of {dataset.train.rows:,} rows are cut after {limit:,} tokens (--max-seq-len)"
        )


def token_inspector(asked: Asked, environ: Mapping[str, str]) -> TokenInspector:
    """Counts with the tokenizer of the model that will be trained."""
    # whether there are conversations is known when the rows are read
    model = model_source.load(asked.model, environ, chat=False, dry=False)
    if model.native_tokenizer:
        raise ModelError(
            f"the model has no {FAST}, so its tokens cannot be counted",
            where="--model or TRAIN_MODEL",
            hint=f"--no-tokens leaves that out; or: {CONVERT}",
        )
    model_source.ensure_present(model, environ)
    longest = asked.max_seq_len or min(LONGEST_ROW, model.context)
    return TokenInspector(chat_of(model.folder, environ), longest, asked.preview)


def chat_of(model: Path, environ: Mapping[str, str], train_on: TrainOn = "all") -> Chat:
    """What writes out and tokenises a model's conversations; torch is not imported for it."""
    with meeting(model, environ):
        pass
    return Chat(str(model), train_on, environ)
