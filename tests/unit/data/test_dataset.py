"""entrypoint.data.dataset: from what --data names to the rows of a run."""

import shutil
from pathlib import Path

import pytest

from entrypoint.data.dataset import find, load
from entrypoint.data.source import EMBEDDED_FOLDER, short_name
from entrypoint.errors import DataError, SettingsError
from tests.unit.data.sets import SHAPES, lines, preferred, run, sft


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"TRAIN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([SHAPES["alpaca"][0](n) for n in range(30)]))
    return path


def test_the_embedded_rows_are_canonical_already(environ: dict[str, str]):
    found = load("embedded", environ, dry=False)
    assert (found.train.rows, found.evaluation.rows) == (1_000, 200)
    for file in (found.train, found.evaluation):
        assert file.path.read_bytes() == (EMBEDDED_FOLDER / file.path.name).read_bytes()


def test_embedded_is_pairs_to_those_who_ask_for_pairs_first(environ: dict[str, str]):
    assert load("embedded", environ, tasks=("preference",)).task == "preference"
    assert load("embedded", environ, tasks=("sft", "preference", "text")).task == "sft"


def test_a_dry_run_writes_nothing_and_says_the_same(environ: dict[str, str], rows: Path):
    dry = load(str(rows), environ)
    assert not Path(environ["TRAIN_CACHE"]).exists()
    assert load(str(rows), environ, dry=False) == dry


def test_the_same_content_is_prepared_once(
    environ: dict[str, str], rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = load(str(rows), environ, dry=False)
    before = first.train.path.stat().st_mtime_ns
    copy = Path(shutil.copy(rows, tmp_path / "copy.jsonl"))
    again = load(str(copy), environ, dry=False)
    assert again.train == first.train
    assert again.train.path.stat().st_mtime_ns == before
    copy.write_bytes(copy.read_bytes() * 2)
    assert load(str(copy), environ, dry=False).train.path != first.train.path
    assert "30 rows, duplicates (keep)" in capsys.readouterr().err


def test_a_prepared_folder_is_taken_as_it_is(environ: dict[str, str], rows: Path, tmp_path: Path):
    prepared = run(rows, tmp_path / "out", eval_fraction=0.5)
    found = load(str(tmp_path / "out"), environ, dry=False)
    assert (found.train, found.evaluation) == (prepared.train, prepared.evaluation)
    assert not Path(environ["TRAIN_CACHE"]).exists()
    found.train.path.write_bytes(lines([sft(1)]))
    with pytest.raises(DataError, match=r"changed after it was prepared"):
        load(str(tmp_path / "out"), environ)


@pytest.mark.parametrize("text", ['[{"prompt": "a", "completion": "b"}]', "{", '{"task": "sft"}'])
def test_a_description_of_somebody_elses_is_no_prepared_folder(
    environ: dict[str, str], tmp_path: Path, text: str
):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match="not the one that `train prepare` writes"):
        load(str(tmp_path), environ)


def test_rows_for_another_objective_are_refused(environ: dict[str, str], tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(lines([preferred(1)]))
    with pytest.raises(DataError, match="for preference, not sft"):
        load(str(path), environ)
    assert load(str(path), environ, tasks=("preference",)).train.rows == 1


@pytest.mark.parametrize("reference", ["nowhere.jsonl", "/no/where", "a:b:c", "*.nothing"])
def test_nothing_there(environ: dict[str, str], tmp_path: Path, reference: str):
    with pytest.raises(DataError, match=r"no data at|no file matches"):
        load(reference, environ)


def test_folders_without_rows_or_with_unclear_parts(environ: dict[str, str], tmp_path: Path):
    with pytest.raises(DataError, match="no files of rows"):
        load(str(tmp_path), environ)
    (tmp_path / "train.jsonl").write_bytes(lines([sft(1)]))
    (tmp_path / "more.jsonl").write_bytes(lines([sft(2)]))
    with pytest.raises(DataError, match=r"more\.jsonl is no training file"):
        load(str(tmp_path), environ)


@pytest.mark.parametrize(
    ("reference", "name"),
    [(".", "rows"), ("..", "here"), ("x/.bookings.jsonl.gz", "bookings"), ("a/b.jsonl", "b"),
     ("ORG/NAME:part", "NAME"), ("-", "stdin"), ("/", "rows")],
)  # fmt: skip
def test_rows_have_a_name_wherever_they_are_named_from(
    reference: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here" / "rows").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "rows")
    assert short_name(reference) == name


def test_local_files_have_no_splits(environ: dict[str, str], rows: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="has no splits"):
        find(str(rows), "train", environ, tmp_path)
