"""`train eval` and `--then eval` as whole commands on the tiny model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from entrypoint.evaluation.request import read
from tests.e2e.starting import Train
from tests.e2e.starting import in_a_process as train
from tests.hub_server import HubServer

pytestmark = pytest.mark.e2e


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns(*texts: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if index % 2 else "user", "content": text}
        for index, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of one and two turns, with a part held out."""
    folder = tmp_path_factory.mktemp("data")

    def conversation(number: int) -> dict[str, Any]:
        first = turns(f"Number {number}?", "Yes")
        return {
            "messages": first + (turns(f"And {number} more?", "No, thanks") if number % 2 else [])
        }

    write(folder / "train.jsonl", [conversation(number) for number in range(16)])
    write(folder / "eval.jsonl", [conversation(number) for number in range(100, 106)])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, data: Path) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    ended = train(
        "sft", "--model", tiny_model, "--data", data, "--output", output, "--batch-size", 4,
        "--max-seq-len", 128, "--epochs", 4, "--lr", 0.02, "--eval-every", 16, "--then", "eval",
        "--dtype", "fp32", "--gate", "loss<=base-0.1",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "met    loss<=base-0.1" in ended.stdout
    return output


def test_held_out_rows_are_scored_without_a_task_file(run: Path, data: Path):
    """And their loss is the one that training computes on them."""
    tuned, base = (read(run / "eval" / f"{label}.json") for label in ("tuned", "base"))
    name = data.name.replace("-", "_")
    assert tuned.rows == {name: 6}
    lines = (run / "logs" / "metrics.jsonl").read_text().splitlines()
    validated = [json.loads(line) for line in lines]
    assert tuned.scores[f"{name}/loss"] == pytest.approx(validated[-1]["validation_loss"], rel=1e-4)
    assert tuned.scores[f"{name}/loss"] < base.scores[f"{name}/loss"]
    assert tuned.scores[f"{name}/perplexity"] == pytest.approx(
        math.exp(tuned.scores[f"{name}/loss"])
    )
    first = tuned.samples[name][0]
    assert first["target"] == "Yes"
    assert first["prompt"].endswith("<|im_start|>assistant\n")
    assert first["scores"]["exact_match"] == float(first["answer"].strip() == "Yes")


def test_the_adapter_on_its_base_is_the_merged_model(
    run: Path, data: Path, tmp_path: Path, train_here: Train
):
    code, said = train_here(
        "eval", "--model", run / "adapter", "--data", data, "--dtype", "fp32", "--batch-size", 2,
        "--output", tmp_path / "adapter.json",
    )  # fmt: skip
    assert code == 0, said
    found, tuned = read(tmp_path / "adapter.json"), read(run / "eval" / "tuned.json")
    assert found.adapter == run / "adapter"
    assert found.scores == pytest.approx(tuned.scores, rel=1e-3)
    assert found.performance["rows_at_once"] == 2


def test_two_processes_score_as_one_does(run: Path, data: Path, tmp_path: Path):
    ended = train(
        "eval", "--model", run, "--data", data, "--nproc-per-node", 2, "--dtype", "fp32",
        "--label", "both", "--output", tmp_path / "both.json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found, tuned = read(tmp_path / "both.json"), read(run / "eval" / "tuned.json")
    assert found.performance["processes"] == 2
    assert found.scores == pytest.approx(tuned.scores, rel=1e-5)
    for mine, other in zip(
        *(next(iter(one.samples.values())) for one in (found, tuned)), strict=True
    ):
        assert mine["doc_hash"] == other["doc_hash"]
        assert mine["answer"] == other["answer"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Four preference pairs, of which the chosen answer is the shorter."""
    rows = [
        {"prompt": f"Number {n}?", "chosen": "Yes", "rejected": "A long answer"} for n in range(4)
    ]
    return write(tmp_path / "pairs.jsonl", rows)


def test_pairs_have_margins_and_the_share_that_is_above_zero(
    tiny_model: Path, pairs: Path, tmp_path: Path, train_here: Train
):
    output = tmp_path / "pairs.json"
    code, said = train_here("eval", "--model", tiny_model, "--data", pairs, "--output", output)
    assert code == 0, said
    found = read(output)
    margins = [one["scores"]["preference_margin"] for one in found.samples["pairs"]]
    assert found.scores["pairs/preference_margin"] == pytest.approx(sum(margins) / 4)
    # a random model finds the shorter answer likelier
    assert found.scores["pairs/preference_accuracy"] == sum(one > 0 for one in margins) / 4 == 1.0


def test_texts_have_a_loss_and_a_perplexity(tiny_model: Path, tmp_path: Path, train_here: Train):
    texts = write(tmp_path / "texts.jsonl", [{"text": "A table in Rome."}, {"text": "Two."}])
    output = tmp_path / "texts.json"
    code, said = train_here("eval", "--model", tiny_model, "--data", texts, "--output", output)
    assert code == 0, said
    assert read(output).scores.keys() == {"texts/loss", "texts/perplexity"}


def test_examples_come_before_the_question(
    tiny_model: Path, data: Path, tmp_path: Path, train_here: Train
):
    code, said = train_here(
        "eval", "--model", tiny_model, "--data", data, "--fewshot", 2, "--max-new-tokens", 3,
        "--limit", 2, "--no-chat-template", "--output", tmp_path / "few.json",
    )  # fmt: skip
    assert code == 0, said
    (samples,) = read(tmp_path / "few.json").samples.values()
    assert samples[0]["prompt"].count("Yes") >= 2
    assert "<|im_start|>" not in samples[0]["prompt"]


def test_4_examples_need_rows_that_are_not_scored(
    tiny_model: Path, pairs: Path, tmp_path: Path, train_here: Train
):
    code, said = train_here(
        "eval", "--model", tiny_model, "--data", pairs, "--fewshot", 2,
        "--output", tmp_path / "few.json",
    )  # fmt: skip
    assert code == 4, said
    assert "no other rows to draw examples from" in said


def test_lm_evals_own_tools_read_what_is_written(run: Path):
    from datasets import load_dataset
    from lm_eval.utils import get_latest_filename, make_table

    folder = run / "eval" / "lm_eval" / "tuned"
    names = [path.name for path in folder.iterdir()]
    latest = get_latest_filename([name for name in names if name.startswith("results_")])
    results = json.loads((folder / latest).read_text())
    table = make_table(results)
    for words in ("exact_match", "loss", "rougeL", "perplexity"):
        assert words in table
    assert results["config"]["model_args"].startswith("pretrained=")
    (samples,) = (name for name in names if name.startswith("samples_"))
    found = load_dataset("json", data_files=str(folder / samples), split="train")
    assert len(found) == 6
    assert {"doc_id", "arguments", "resps", "filtered_resps", "target", "doc_hash"} <= set(
        found.column_names
    )


def test_the_pipeline_compares_what_it_has_scored(run: Path):
    found = json.loads((run / "compare.json").read_text())
    assert list(found["models"]) == ["base", "tuned"]
    by_metric = {one["score"].rsplit("/")[-1]: one for one in found["differences"]}
    assert by_metric["loss"]["verdict"] == "better"
    assert by_metric["loss"]["high"] < 0
    assert by_metric["exact_match"]["p_value"] <= 1
    assert found["changes"]
    assert json.loads((run / "result.json").read_text())["gates"][0]["holds"]


def test_8_a_broken_model_fails_the_gate_after_all_is_written(
    run: Path,
    tiny_model: Path,
    data: Path,
    tmp_path: Path,
    train_here: Train,
    monkeypatch: pytest.MonkeyPatch,
):
    """In the pipeline, by a learning rate that ruins it, and in `train compare`."""
    monkeypatch.setenv("TRAIN_GATE", "'loss <= base + 0.5' exact_match>=-1")
    code, said = train_here(
        "sft", "--model", tiny_model, "--data", data, "--output", tmp_path / "run",
        "--lr", 1.0, "--method", "full", "--batch-size", 4, "--max-steps", 4,
        "--max-seq-len", 128, "--then", "eval",
    )  # fmt: skip
    assert code == 8, said
    assert "1 of 2 conditions failed" in said
    assert "/loss of tuned is" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [one["holds"] for one in result["gates"]] == [False, True]
    monkeypatch.delenv("TRAIN_GATE")
    code, said = train_here(
        "compare", f"old={run / 'eval' / 'base.json'}",
        f"new={tmp_path / 'run' / 'eval' / 'tuned.json'}",
        "--gate", "loss<=old", "--output", tmp_path / "compared",
    )  # fmt: skip
    assert code == 8, said
    assert "FAILED loss<=old" in said
    assert (tmp_path / "compared" / "compare.json").is_file()


def test_models_that_are_not_scored_yet_are(
    run: Path, tiny_model: Path, data: Path, tmp_path: Path, train_here: Train
):
    compared = tmp_path / "compared"
    few = ("--data", data, "--limit", 3, "--max-new-tokens", 0)
    code, said = train_here(
        "compare", f"base={tiny_model}", run, *few, "--output", compared, "--gate", "loss<base"
    )
    assert code == 0, said
    # beside a result, only what has none
    scored = compared / "eval" / "tuned.json"
    code, said = train_here("compare", scored, f"new={run}", *few, "--output", tmp_path / "again")
    assert code == 0, said
    assert [path.name for path in (tmp_path / "again" / "eval").glob("*.json")] == ["new.json"]
    assert read(tmp_path / "again" / "eval" / "new.json").scores == read(scored).scores
    code, said = train_here("compare", run / "eval" / "base.json", scored)
    assert code == 4
    assert "base has 6 samples and tuned 3" in said


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("exact_match=1", "is no condition"),
        ("accuracy>=base", "the scores are embedded/exact_match"),
        ("loss<=bse", "the models are base, tuned"),
    ],
)
def test_3_a_condition_that_cannot_be_held_stops_before_any_work(
    condition: str, words: str, tiny_model: Path, tmp_path: Path, train_here: Train
):
    code, said = train_here(
        "sft", "--model", tiny_model, "--output", tmp_path / "run", "--then", "eval",
        "--gate", condition, "--max-seq-len", 256,
    )  # fmt: skip
    assert code == 3, said
    assert words in said
    assert not (tmp_path / "run").exists()


TRUTHFUL = [
    {
        "question": f"What is the capital of {country}?",
        "mc1_targets": {"choices": [city, "Atlantis"], "labels": [1, 0]},
        "mc2_targets": {
            "choices": [city, f"It is {city}", "Atlantis", "El Dorado"], "labels": [1, 1, 0, 0]
        },
    }
    for country, city in (("France", "Paris"), ("Italy", "Rome"), ("Peru", "Lima"))
]  # fmt: skip


def test_truthfulqa_is_scored_as_in_the_original(tiny_model: Path, tmp_path: Path):
    """lm-eval's own task, with data of its shape from a hub on the loopback."""
    import pyarrow as pa
    import pyarrow.parquet

    card = (
        "---\nconfigs:\n- config_name: multiple_choice\n  data_files:\n"
        "  - {split: validation, path: multiple_choice/validation-00000-of-00001.parquet}\n---\n"
    )
    folder = tmp_path / "repository"
    (folder / "multiple_choice").mkdir(parents=True)
    (folder / "README.md").write_text(card)
    pyarrow.parquet.write_table(
        pa.Table.from_pylist(TRUTHFUL),
        folder / "multiple_choice" / "validation-00000-of-00001.parquet",
    )
    server = HubServer()
    try:
        server.add("truthfulqa/truthful_qa", folder)
        ended = train(
            "eval", "--model", tiny_model, "--tasks", "truthfulqa_mc2",
            "--output", tmp_path / "truthful.json",
            HF_ENDPOINT=server.url, HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="0",
        )  # fmt: skip
    finally:
        server.close()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = read(tmp_path / "truthful.json")
    assert found.rows == {"truthfulqa_mc2": 3}
    assert 0 < found.scores["truthfulqa_mc2/acc"] < 1
    assert found.metrics["truthfulqa_mc2/acc"].aggregation == "mean"
    sample = found.samples["truthfulqa_mc2"][0]
    assert sample["answer"] in TRUTHFUL[0]["mc2_targets"]["choices"]
    assert sample["prompt"].rstrip().endswith("<|im_start|>assistant")
