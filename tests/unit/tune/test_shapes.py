"""Rows of every shape, from a user's file to the labels of a training step."""

import shutil
from pathlib import Path

import pytest

from entrypoint import pipeline, preparation
from entrypoint.data.chat import Chat
from entrypoint.errors import DataError, ModelError
from entrypoint.preparation import check_rows
from entrypoint.settings import Settings
from tests.recipes import losses, recipe, train
from tests.unit.data.sets import COUNT, FLAT, NESTED, lines, read

SHAPES = {name: row for name, row in (FLAT | NESTED).items() if not name.startswith("preference")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_trains_on_the_labels_of_its_shape(shape: str, tiny_model: Path, tmp_path: Path):
    make, expect = SHAPES[shape]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([make(n) for n in range(COUNT)]))
    given = {"data": str(path), "batch_size": COUNT, "max_steps": 1, "max_seq_len": 512}
    (step,) = train(recipe(tiny_model, tmp_path / "run", **given))
    tokenizer = Chat(str(tiny_model)).tokenizer.backend
    count = lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)  # noqa: E731
    labels = 0
    for row in (expect(n) for n in range(COUNT)):
        if "text" in row:
            # the end-of-text token has a label, the first token has none
            labels += count(row["text"])
        for message in row.get("messages", ()):
            if message["role"] == "assistant":
                labels += count(message["content"] + "<|im_end|>")
    assert step["tokens_trained"] == labels


def test_texts_are_learned_packed_or_not(tiny_model: Path, tmp_path: Path):
    path = tmp_path / "texts.csv"
    path.write_text("text\n" + "".join(f"room {n} is {n * 'very '}quiet\n" for n in range(24)))
    given = {"data": str(path), "max_steps": 6}
    packed = train(recipe(tiny_model, tmp_path / "packed", "packing_window=100", **given))
    plain = train(recipe(tiny_model, tmp_path / "plain", "packing_window=null", **given))
    assert losses(packed) == pytest.approx(losses(plain), abs=1e-5)
    assert losses(packed)[-1] < losses(packed)[0] - 0.1


def test_a_model_without_a_chat_template_trains_on_texts(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    (base / "chat_template.jinja").unlink()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([{"text": f"{n} " * (60 if n < 3 else 6)} for n in range(COUNT)]))
    settings = Settings(model=str(base), data=str(path), max_seq_len=32, batch_size=4)
    prepared = pipeline.prepare(settings, {"TRAIN_CACHE": str(tmp_path / "cache")})
    check_rows(prepared.plan.dataset, base, prepared.recipe)
    assert "3 of 30 rows are cut after 32 tokens" in capsys.readouterr().err
    (step,) = train(recipe(base, tmp_path / "run", data=str(path), max_steps=1, batch_size=4))
    assert step["tokens_trained"] > 4
    path.write_bytes(lines([SHAPES["alpaca"][0](n) for n in range(COUNT)]))
    with pytest.raises(ModelError, match="no chat template"):
        recipe(base, tmp_path / "chat", data=str(path))


def test_rows_are_looked_at_once_for_each_tokenizer(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([{"text": f"{n} " * (60 if n < 3 else 6)} for n in range(COUNT)]))
    environ = {"TRAIN_CACHE": str(tmp_path / "cache")}
    settings = Settings(model=str(model), data=str(path), max_seq_len=32, batch_size=4)
    prepared = pipeline.prepare(settings, environ)
    looks = []
    check = preparation.check_trained
    monkeypatch.setattr(
        preparation, "check_trained", lambda *given: looks.append(given) or check(*given)
    )
    for _ in range(2):
        check_rows(prepared.plan.dataset, model, prepared.recipe, environ)
        assert "3 of 30 rows are cut after 32 tokens" in capsys.readouterr().err
    assert len(looks) == 1
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    check_rows(prepared.plan.dataset, model, prepared.recipe, environ)
    check_rows(prepared.plan.dataset, model, prepared.recipe)
    assert len(looks) == 3


def test_texts_that_are_one_token_have_nothing_to_learn(tiny_model: Path, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([{"text": f"{n} and more"} for n in range(COUNT)]))
    settings = Settings(model=str(tiny_model), data=str(path), max_seq_len=1, batch_size=4)
    prepared = pipeline.prepare(settings, {"TRAIN_CACHE": str(tmp_path / "cache")})
    with pytest.raises(DataError, match=r"nothing to learn[\s\S]*line 1"):
        check_rows(prepared.plan.dataset, tiny_model, prepared.recipe)
    assert len(read(prepared.plan.dataset.train.path)) == COUNT
