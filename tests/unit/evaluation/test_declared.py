"""entrypoint.evaluation.declared: which scores there will be, before anything is computed."""

from pathlib import Path

import pytest

from entrypoint.evaluation.declared import declared_scores

TASKS = {
    "choices": "output_type: multiple_choice\ntag: mine",
    "answers": "output_type: generate_until\ntag: mine\n"
    "metric_list: [{metric: bleu}, {metric: f1}]\n"
    "filter_list: [{name: strict, filter: []}, {name: none, filter: []}]",
    "coded": "class: !function code.Task",
}
GROUPS = {
    "both": "task: [choices, answers]",
    "summed": "task: [choices]\naggregate_metric_list: [{metric: acc}]",
    "with_code": "task: [mine, coded]",
}
CHOICES = ["choices/acc", "choices/acc_norm"]
ANSWERS = ["answers/bleu@strict", "answers/bleu", "answers/f1@strict", "answers/f1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{text}\n")
    for name, text in GROUPS.items():
        (folder / f"{name}.yaml").write_text(f"group: {name}\n{text}\n")
    (folder / "code.py").write_text("class Task: pass\n")
    return folder


@pytest.mark.parametrize(
    ("names", "scores"),
    [
        (("choices",), CHOICES),
        (("answers",), ANSWERS),
        (("embedded",), ["embedded/exact_match"]),
        (("mine",), [*ANSWERS, *CHOICES]),
        (("both",), [*CHOICES, *ANSWERS]),
        (("summed",), None),
        (("choices", "coded"), None),
        (("with_code",), None),
    ],
)
def test_scores_are_those_that_the_files_name(
    names: tuple[str, ...], scores: list[str] | None, folder: Path
):
    assert declared_scores(names, folder) == scores
