"""The models and the rows that a run is made from."""

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.data import dataset as datasets
from entrypoint.data.dataset import Dataset
from entrypoint.models import source
from entrypoint.models.card import Model
from entrypoint.models.teacher import check_written, load_both
from entrypoint.objectives import TASKS
from entrypoint.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What `settings` name, found and checked."""

    model: Model
    dataset: Dataset
    teacher: Model | None
    """Of KD."""


def find(settings: Settings, environ: Mapping[str, str], *, dry: bool) -> Inputs:
    """The cards of the models and the rows that `settings` name; see their `load`.

    Args:
        dry: check everything and write nothing.
    """
    dataset = datasets.load(settings.data, environ, tasks=TASKS[settings.objective], dry=dry)
    chat = dataset.task != "text" or "eval" in settings.then
    if settings.objective == "kd":
        model, teacher = load_both(settings.model, settings.teacher, environ, chat=chat, dry=dry)
        return Inputs(model=model, dataset=dataset, teacher=teacher)
    model = source.load(settings.model, environ, chat=chat, dry=dry)
    return Inputs(model=model, dataset=dataset, teacher=None)


def ensure_present(model: Model, teacher: Model | None, environ: Mapping[str, str]) -> None:
    """Put the models into the cache when they are not there, and look into them.

    Raises:
        ModelError: one cannot be fetched, its weights are corrupt, or the vocabularies differ.
        DoesNotFitError: the disk has too little room.
    """
    source.ensure_present(model, environ)
    if teacher is None or teacher.folder == model.folder:
        return
    source.ensure_present(teacher, environ)
    check_written(model, teacher)
