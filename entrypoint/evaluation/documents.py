"""The texts of lm-eval tasks, as the model would see them."""

from collections.abc import Collection, Iterator
from pathlib import Path

from entrypoint.errors import DataError
from entrypoint.evaluation.harness import task_manager


def texts(tasks: Collection[str], include: Path | None) -> Iterator[str]:
    """Question and answer of each document of the tasks.

    Raises:
        SettingsError: a task that nobody knows.
        DataError: a task's documents cannot be loaded.
    """
    manager = task_manager(tuple(tasks), include)
    try:
        loaded = manager.load(list(tasks))["tasks"]
    except (OSError, ValueError, ConnectionError) as error:
        raise DataError(
            f"the tasks' documents cannot be loaded: {error}",
            where=f"--check-leakage {','.join(tasks)}",
        ) from error
    for task in loaded.values():
        for document in task.eval_docs:
            yield str(task.doc_to_text(document))
            yield str(task.doc_to_target(document))
