"""Time `train eval` against `lm_eval --model hf` on the same model, tasks and batch.

    python scripts/bench_eval.py [MODEL_FOLDER]

Both run as whole commands, in turns, in fp32. Two tasks: answers to the built-in data set's rows,
and choices to questions after a prompt of several examples, as TruthfulQA's. The answers and the
chosen choices of both are compared. Figures go to docs/benchmarks.md by hand.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrypoint.evaluation.request import TASK_FOLDER
from entrypoint.models.embedded.materialise import embedded_folder, materialise

ROUNDS = 3
BATCH = 8
ROWS = {"embedded": 32, "choices": 16}
"""Task -> rows that are scored."""
CHOICES = """
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
EXAMPLES = "\n\n".join(
    f"Q: What is the capital of {country}?\nA: The capital of {country} is {city}."
    for country, city in (
        ("Norway", "Oslo"), ("Peru", "Lima"), ("Japan", "Tokyo"), ("Egypt", "Cairo"),
        ("Canada", "Ottawa"), ("Kenya", "Nairobi"),
    )
)  # fmt: skip
ENVIRONMENT: Mapping[str, str] = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    # threads that spin beside other work burn CPU seconds that say nothing
    "OMP_WAIT_POLICY": "PASSIVE",
}


def write_tasks(folder: Path) -> Path:
    """The two tasks in one folder."""
    tasks = folder / "tasks"
    tasks.mkdir()
    for path in TASK_FOLDER.iterdir():
        if path.is_file():
            (tasks / path.name).write_bytes(path.read_bytes())
    rows = folder / "choices.jsonl"
    with rows.open("w") as file:
        for number in range(ROWS["choices"]):
            question = f"{EXAMPLES}\n\nQ: What is {number} plus {number + 3}?\nA:"
            endings = [2 * number + 3 + more for more in (0, 1, 10, 4, 7)]
            choices = [f"{number} plus {number + 3} is {ending}." for ending in endings]
            file.write(json.dumps({"prompt": question, "choices": choices}) + "\n")
    (tasks / "choices.yaml").write_text(CHOICES.format(rows=rows))
    return tasks


def run(argv: tuple[str, ...]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    ended = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{argv}\n{ended.stdout}\n{ended.stderr}")
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu


def theirs(model: Path, task: str, tasks: Path, output: Path) -> tuple[str, ...]:
    return (
        sys.executable, "-m", "lm_eval", "--model", "hf",
        "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu",
        "--tasks", task, "--include_path", str(tasks), "--batch_size", str(BATCH),
        "--limit", str(ROWS[task]), "--apply_chat_template", "--log_samples",
        "--output_path", str(output),
    )  # fmt: skip


def ours(model: Path, task: str, tasks: Path, output: Path, batch: str) -> tuple[str, ...]:
    return (
        sys.executable, "-m", "entrypoint", "eval", "--model", str(model), "--dtype", "fp32",
        "--device", "cpu", "--tasks", task, "--tasks-folder", str(tasks), "--batch-size", batch,
        "--limit", str(ROWS[task]), "--output", str(output / "ours.json"), "--label", "ours",
    )  # fmt: skip


def answers(folder: Path) -> list[Any]:
    """What was answered, from the files that both write in lm-eval's format."""
    (path,) = folder.rglob("samples_*.jsonl")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        one["filtered_resps"]
        if isinstance(one["filtered_resps"][0], str)
        else max(
            range(len(one["filtered_resps"])), key=lambda at: float(one["filtered_resps"][at][0])
        )
        for one in sorted(found, key=lambda one: one["doc_id"])
    ]


def main() -> None:
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else embedded_folder(os.environ)
    if len(sys.argv) == 1:
        materialise(model)
    for task in ROWS:
        found: dict[str, list[tuple[float, float]]] = {"lm_eval": [], "ours": [], "ours, auto": []}
        same = True
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                tasks = write_tasks(folder)
                said = []
                for kind in found:
                    output = folder / kind.replace(", ", "-")
                    output.mkdir()
                    command = (
                        theirs(model, task, tasks, output)
                        if kind == "lm_eval"
                        else ours(model, task, tasks, output, "auto" if "," in kind else str(BATCH))
                    )
                    found[kind].append(run(command))
                    said.append(answers(output))
                    wall, cpu = found[kind][-1]
                    print(f"{task:<9} {kind:<10} {wall:6.1f} s  {cpu:6.1f} s of CPU", flush=True)
                same = same and said[0] == said[1] == said[2]
        for kind in ("ours", "ours, auto"):
            for index, unit in enumerate(("wall", "CPU")):
                ratios = [
                    mine[index] / other[index]
                    for mine, other in zip(found[kind], found["lm_eval"], strict=True)
                ]
                print(
                    f"{task}: {kind} / lm_eval, {unit}: {statistics.median(ratios):.2f} "
                    f"({min(ratios):.2f} to {max(ratios):.2f})"
                )
        print(f"{task}: the same answers: {same}", flush=True)


if __name__ == "__main__":
    main()
