"""Compare models that were scored on the same samples, and hold them to conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from entrypoint import gate, launch
from entrypoint.comparison import paired
from entrypoint.comparison.table import show_comparison
from entrypoint.data.dataset import Dataset
from entrypoint.data.shapes import Task
from entrypoint.errors import SettingsError
from entrypoint.evaluation import expected
from entrypoint.evaluation.request import METRICS, Evaluation, Request, read
from entrypoint.files import read_json, write_json
from entrypoint.gate import Gate, Verdict
from entrypoint.models.checkpoint import Checkpoint, locate
from entrypoint.results import Told, nowhere
from entrypoint.run_folder import RunFolder, default_output
from entrypoint.schemes import of_run
from entrypoint.scoring import Asked, of_checkpoint, prepare, score, task_name
from entrypoint.settings import Settings

OUTPUT_OPTION = "--output or TRAIN_COMPARE_OUTPUT"


def check_gates(settings: Settings, dataset: Dataset) -> None:
    """Find before training what would stop the judgement after it.

    Raises:
        SettingsError: nothing is scored, or a condition names a model or a score that there is none
            of.
    """
    gates = [gate.parse(text) for text in settings.gates]
    if not gates:
        return
    if "eval" not in settings.then:
        raise SettingsError("a condition needs scores", where=gate.WHERE, hint="add eval to --then")
    labels = ["base", "tuned"]
    if "quantize" in settings.then[: settings.then.index("eval")]:
        labels.extend(scheme.method for scheme in of_run(settings))
    for one in gates:
        one.applies_to(labels)
    rows = None if settings.tasks else (task_name(settings.data), dataset.task)
    check_metrics(gates, scores_of(settings.tasks, settings.tasks_folder, rows))


def scores_of(
    tasks: tuple[str, ...], folder: Path | None, rows: tuple[str, Task] | None
) -> list[str] | None:
    """`task/metric` of all scores that there will be; None where that is not known before.

    Args:
        rows: what rows are called in the results, and what they are for.
    """
    own = [f"{rows[0]}/{metric}" for metric in METRICS[rows[1]]] if rows else []
    if not tasks:
        return own
    # imports lm-eval, which takes seconds
    from entrypoint.evaluation.declared import declared_scores

    declared = declared_scores(tasks, folder)
    return None if declared is None else [*declared, *own]


def check_metrics(gates: Sequence[Gate], scores: Sequence[str] | None) -> None:
    """Refuse conditions on scores that there will not be.

    Raises:
        SettingsError: names those there are.
    """
    for one in gates:
        if scores is not None:
            gate.check_metric(one, [found for found in scores if one.matches(found)], scores)


def conclude(
    evaluations: Sequence[Evaluation], gates: Sequence[str], path: Path, console: Console
) -> tuple[Verdict, ...]:
    """Compare, judge, show, and write compare.json.

    Raises:
        DataError: the samples are not the same.
        SettingsError: a condition on a score or model that there is none of.
    """
    comparison = paired.compare(evaluations)
    scores = {one.label: one.scores for one in evaluations}
    verdicts = gate.judge([gate.parse(text) for text in gates], scores)
    write_json(path, paired.record(comparison, verdicts))
    show_comparison(comparison, verdicts, console)
    return tuple(verdicts)


def compare_models(
    references: Sequence[str],
    asked: Asked,
    environ: Mapping[str, str],
    *,
    gates: Sequence[str],
    output: Path | None,
    told: Told = nowhere,
) -> None:
    """`train compare`: score what is not scored yet, compare, judge.

    Raises:
        SettingsError, DataError, ModelError: what is named cannot be compared.
        GateError: a condition is not met.
    """
    console = Console(highlight=False, soft_wrap=True)
    conditions = [gate.parse(text) for text in gates]
    sides = named(find(references, environ))
    labels = [label for label, _ in sides]
    for condition in conditions:
        condition.applies_to(labels)
    folder = (output or default_output("compare", labels[-1])).absolute()
    if folder.exists():
        raise SettingsError(
            f"{folder} exists already", where=OUTPUT_OPTION, hint="give another folder"
        )
    launch.check_room(folder, 0, OUTPUT_OPTION)
    models = [side for _, side in sides if isinstance(side, Checkpoint)]
    request = prepare(asked, environ) if models else None
    check_samples(sides, request)
    scored = next((side.scores for _, side in sides if isinstance(side, Evaluation)), None)
    if scored is not None:
        check_metrics(conditions, list(scored))
    elif conditions and request is not None:
        rows = (request.rows.name, request.rows.kind) if request.rows else None
        check_metrics(conditions, scores_of(request.tasks, request.include, rows))
    evaluations = []
    for label, side in sides:
        if isinstance(side, Evaluation):
            evaluations.append(relabelled(side, label))
            continue
        assert request is not None
        console.print(f"\n== evaluating {label}", markup=False)
        one = of_checkpoint(request, side, label, folder / "eval" / f"{label}.json")
        evaluations.append(score(one, environ, folder / "logs" / f"eval-{label}.log"))
    path = folder / "compare.json"
    verdicts = conclude(evaluations, gates, path, console)
    console.print(f"results: {path}", markup=False)
    told({"results": str(path), **(read_json(path) or {})})
    gate.enforce(verdicts, path)


Side = Evaluation | Checkpoint


def check_samples(sides: Sequence[tuple[str, Side]], request: Request | None) -> None:
    """Find before anything is scored that results have other samples, as far as that is known then:
    which documents a task of lm-eval has is not.

    Args:
        request: what will be scored, if anything.

    Raises:
        DataError: names task and samples.
    """
    known = [relabelled(side, label) for label, side in sides if isinstance(side, Evaluation)]
    if known and request and request.rows and not request.tasks:
        samples = expected.samples(request.rows, request.limit)
        known += [
            Evaluation(label=label, checkpoint=side.folder, scores={}, rows={}, samples=samples)
            for label, side in sides
            if isinstance(side, Checkpoint)
        ][:1]
    for other in known[1:]:
        paired.check_same(known[0], other)


def find(references: Sequence[str], environ: Mapping[str, str]) -> list[tuple[str | None, Side]]:
    """What to compare, each with the label that the user gave it.

    One run folder alone stands for all its evaluations.

    Raises:
        SettingsError: fewer than two.
    """
    if len(references) == 1:
        found = evaluations_of(RunFolder(root=Path(references[0]).expanduser()))
        if len(found) < 2:
            raise SettingsError(
                f"{references[0]} has {len(found)} evaluations; two are needed",
                where="train compare",
                hint="give two models, results of `train eval` (*.json), or a run with several",
            )
        return [(None, one) for one in found]
    sides: list[tuple[str | None, Side]] = []
    for reference in references:
        label, equals, rest = reference.partition("=")
        name, what = (label, rest) if equals and "/" not in label else (None, reference)
        path = Path(what).expanduser()
        is_result = path.suffix == ".json" and path.is_file()
        sides.append((name, result(path) if is_result else locate(what, environ)))
    return sides


def evaluations_of(run: RunFolder) -> list[Evaluation]:
    """All evaluations of a run: base, tuned, then the others."""
    order = {"base": 0, "tuned": 1}
    paths = sorted(
        run.evaluations.glob("*.json"), key=lambda path: (order.get(path.stem, 2), path.stem)
    )
    return [result(path) for path in paths]


def result(path: Path) -> Evaluation:
    """A result of `train eval`.

    Raises:
        SettingsError: the file is none.
    """
    try:
        return read(path)
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"this is no result of `train eval`, or one of an older version ({error!r})",
            where=path,
            hint="score the model again",
        ) from error


def named(sides: Sequence[tuple[str | None, Side]]) -> list[tuple[str, Side]]:
    """Each with a label of its own: the user's, else its own, else its run's.

    Raises:
        SettingsError: two cannot be told apart.
    """
    labels = [label or side.label for label, side in sides]
    for index, (given, side) in enumerate(sides):
        doubled = labels.count(side.label) > 1 and not given
        if doubled and isinstance(side, Checkpoint) and side.run:
            labels[index] = side.run.root.name
    for label in labels:
        if labels.count(label) > 1:
            raise SettingsError(
                f"two models are called {label}",
                where="train compare",
                hint="write NAME=REF to call them otherwise",
            )
        if Path(label).name != label:
            raise SettingsError(f"{label} cannot be the name of a file", where="train compare")
    return [(label, side) for label, (_, side) in zip(labels, sides, strict=True)]


def relabelled(evaluation: Evaluation, label: str) -> Evaluation:
    return replace(evaluation, label=label)
