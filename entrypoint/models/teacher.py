"""Student and teacher of a distillation: two models that must share a vocabulary."""

from collections.abc import Mapping

from entrypoint.errors import ModelError
from entrypoint.models import source
from entrypoint.models.card import Model
from entrypoint.models.vocabulary import Vocabulary, check_same, read

OPTIONS = "--model or TRAIN_MODEL", "--teacher or TRAIN_TEACHER"


def load_both(
    student: str, teacher: str, environ: Mapping[str, str], *, chat: bool = True, dry: bool = True
) -> tuple[Model, Model]:
    """The cards of both, as `source.load` makes them.

    Where the built-in model is not written yet, `check_written` has to make up for the comparison.

    Raises:
        ModelError: as there; or their vocabularies differ.
    """
    seen: dict[str, Vocabulary] = {}
    learns = source.load(
        student, environ, chat=chat, dry=dry, look=lambda folder: seen.update(student=read(folder))
    )
    try:
        teaches = source.load(
            teacher,
            environ,
            chat=False,
            dry=dry,
            look=lambda folder: seen.update(teacher=read(folder)),
        )
    except ModelError as error:
        where = error.where and error.where.replace(*OPTIONS)
        raise ModelError(f"the teacher: {error.what}", where=where, hint=error.hint) from error
    if len(seen) == 2:
        check_same(seen["student"], seen["teacher"], (student, teacher))
    return learns, teaches


def check_written(student: Model, teacher: Model) -> None:
    """The same comparison, of models that are in the cache.

    Raises:
        ModelError: the vocabularies differ.
    """
    names = student.reference, teacher.reference
    check_same(read(student.folder), read(teacher.folder), names)
