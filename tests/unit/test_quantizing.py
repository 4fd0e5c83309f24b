"""entrypoint.quantizing: which rows a copy is rounded by."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from entrypoint.data import dataset as datasets
from entrypoint.errors import DataError, SettingsError
from entrypoint.quantizing import Asked, check_asked, said, samples_for, samples_of_run
from entrypoint.run_folder import RunFolder
from entrypoint.schemes import Scheme
from tests.recipes import few_rows
from tests.unit.factories import MODEL, WORLD, plan


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"TRAIN_CACHE": str(tmp_path / "cache")}


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, environ: dict[str, str]) -> RunFolder:
    """A run of a few rows."""
    data = few_rows(tmp_path / "data", train=12)
    run = RunFolder(root=tmp_path / "run")
    shutil.copytree(tiny_model, run.final)
    rows = datasets.load(data, environ, dry=False).train
    write_manifest(run, {"data": data, "objective": "sft", "method": "lora"}, rows.sha256)
    return run


def write_manifest(run: RunFolder, settings: dict[str, Any], sha256: str) -> None:
    run.manifest.write_text(
        json.dumps({"settings": settings, "data": {"train": {"rows": 12, "sha256": sha256}}})
    )


def changed(run: RunFolder, **settings: Any) -> None:
    found = json.loads(run.manifest.read_text())
    write_manifest(run, found["settings"] | settings, found["data"]["train"]["sha256"])


def test_a_run_is_rounded_by_the_rows_that_it_was_trained_on(
    run: RunFolder, environ: dict[str, str]
):
    found = samples_for(run, run.final, Scheme(), Asked(), WORLD, environ)
    assert found is not None
    assert (found.file.rows, found.count) == (12, 128)
    assert said(found, Scheme()).endswith("(GPTQ)")
    assert "12 rows of" in said(found, Scheme())
    assert said(found, Scheme(method="int8-dynamic")).endswith("(SmoothQuant)")
    fewer = samples_for(run, run.final, Scheme(), Asked(rows=5), WORLD, environ)
    assert fewer is not None
    assert "5 rows of" in said(fewer, Scheme())


def test_named_rows_take_the_place_of_the_runs(
    run: RunFolder, tmp_path: Path, environ: dict[str, str]
):
    other = few_rows(tmp_path / "other", train=3)
    for of_run in (run, None):
        found = samples_for(of_run, run.final, Scheme(), Asked(calibrate=other), WORLD, environ)
        assert found is not None
        assert (found.reference, found.file.rows) == (other, 3)


def test_rows_that_have_changed_or_are_gone_are_refused_with_the_way_out(
    run: RunFolder, environ: dict[str, str]
):
    changed(run, data=str(run.root / "nothing.jsonl"))
    with pytest.raises(DataError, match="the run's rows cannot be read") as caught:
        samples_for(run, run.final, Scheme(), Asked(), WORLD, environ)
    assert "--calibration-rows 0" in str(caught.value.hint)
    changed(run, data="embedded")
    with pytest.raises(DataError, match="not the rows that the run was trained on"):
        samples_for(run, run.final, Scheme(), Asked(), WORLD, environ)


def test_the_rows_of_a_run_are_found_from_another_folder_and_not_read_from_standard_input(
    run: RunFolder, tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    manifest = json.loads(run.manifest.read_text()) | {"directory": str(tmp_path)}
    prepared = datasets.load(manifest["settings"]["data"], environ, dry=False).train.path
    run.recipe.write_text(f"dataset:\n  data_files: {prepared}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for data in (Path(manifest["settings"]["data"]).name, "-"):
        manifest["settings"]["data"] = data
        run.manifest.write_text(json.dumps(manifest))
        found = samples_for(run, run.final, Scheme(), Asked(), WORLD, environ)
        assert found is not None
        assert found.file.rows == 12
    shutil.rmtree(prepared.parent)
    with pytest.raises(DataError, match="standard input") as caught:
        samples_for(run, run.final, Scheme(), Asked(), WORLD, environ)
    assert "--calibrate" in str(caught.value.hint)


def test_what_needs_no_rows_is_rounded_to_nearest(run: RunFolder, environ: dict[str, str]):
    def rows(scheme: Scheme, of: RunFolder | None = run, **asked: Any) -> Any:
        return samples_for(of, run.final, scheme, Asked(**asked), WORLD, environ)

    assert rows(Scheme(method="int8-weight-only")) is None
    assert rows(Scheme(), rows=0) is None
    assert rows(Scheme(), of=None) is None
    assert "--calibrate DATA" in said(None, Scheme())
    assert "--calibrate" not in said(None, Scheme(method="int8-weight-only"))
    changed(run, method="qat")
    assert rows(Scheme()) is None
    # rounded otherwise than it was trained for
    assert rows(Scheme(group_size=64)) is not None
    (run.final / "tokenizer.json").unlink()
    assert rows(Scheme(group_size=64)) is None


def test_a_run_that_goes_on_to_quantize_takes_its_own_rows():
    found = samples_of_run(plan(rows=40), Scheme())
    assert found is not None
    assert found.file.rows == 40
    assert samples_of_run(plan(method="qat"), Scheme()) is None
    assert samples_of_run(plan(), Scheme(method="int8-weight-only")) is None
    native = dataclasses.replace(MODEL, native_tokenizer="torchtune.models.llama2.llama2_tokenizer")
    assert samples_of_run(plan(model=native), Scheme()) is None


@pytest.mark.parametrize(
    ("asked", "scheme", "words"),
    [
        (Asked(calibrate="rows"), Scheme(method="int8-weight-only"), "needs no rows"),
        (Asked(calibrate="rows", rows=0), Scheme(), "none shall be taken"),
    ],
)
def test_rows_that_nothing_is_done_with_are_refused(asked: Asked, scheme: Scheme, words: str):
    with pytest.raises(SettingsError, match=words):
        check_asked(asked, scheme, WORLD)
    check_asked(Asked(calibrate="rows", rows=3), Scheme(), WORLD)
