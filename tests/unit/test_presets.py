"""entrypoint.presets: every shipped preset, found by walking the folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from omegaconf import OmegaConf

from entrypoint import presets, templates
from entrypoint.cli import run
from entrypoint.errors import SettingsError
from entrypoint.methods import check
from entrypoint.plan import decided, option_of_key
from entrypoint.presets import NAMES, path_of, read, resolved
from entrypoint.render import check_agreement, render
from entrypoint.settings import Objective, Settings
from tests.unit.factories import MODEL, plan
from tests.unit.golden import check_golden

FILES = sorted((templates.folder() / presets.FOLDER).glob("*"))
SIZES = {"135M": 135_000_000, "8B": 8_000_000_000, "70B": 70_000_000_000}
EACH = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def asked(path: Path, **given: Any) -> Settings:
    objective, name = path.stem.split("-", 1)
    return Settings(objective=objective, preset=name, **given)  # type: ignore[arg-type]


def test_every_objective_has_every_preset():
    expected = {path_of(objective, name) for objective in get_args(Objective) for name in NAMES}
    assert set(FILES) == expected


@EACH
def test_a_preset_says_what_it_is_for(path: Path):
    text = path.read_text("utf-8")
    for word in ("What for", "Needs", "Launch", "Planned"):
        assert f"# {word}" in text
    objective, name = path.stem.split("-", 1)
    assert f"train {objective} --preset {name} " in text


@EACH
def test_a_preset_sets_what_the_golden_file_says(path: Path):
    found = {}
    for label, parameters in SIZES.items():
        for rows in (1_000, 100_000):
            preset = read(path, parameters=parameters, rows=rows)
            found[f"{label}, {rows} rows"] = {**preset.options, "set": list(preset.overrides)}
    check_golden(f"presets/{path.stem}.yaml", yaml.safe_dump(found, sort_keys=False))


@EACH
def test_a_preset_renders_and_its_method_takes_its_options(path: Path):
    for parameters in SIZES.values():
        settings = resolved(asked(path), parameters=parameters, rows=1_000)
        check(settings, MODEL)
        values = {
            name: getattr(settings, name)
            for name in Settings.__dataclass_fields__
            if name != "model"
        }
        made = plan(**values)
        template = templates.shipped(settings.objective)
        recipe = render(templates.read(template), made.variables, settings.overrides)
        check_agreement(recipe, decided(made), option_of_key(settings), name=path.name)
        assert OmegaConf.create(recipe).batch_size == settings.batch_size


def test_what_is_given_by_name_wins():
    path = path_of("sft", "low-memory")
    given = asked(
        path, method="lora", epochs=7, explicit=("method", "epochs"),
        overrides=("enable_activation_checkpointing=false",),
    )  # fmt: skip
    found = resolved(given, parameters=135_000_000, rows=10)
    assert (found.method, found.epochs) == ("lora", 7)
    assert found.overrides == ("enable_activation_checkpointing=false",)
    assert found.lora_rank == 16


def test_a_method_without_an_adapter_takes_no_rank_from_a_preset():
    given = asked(path_of("sft", "balanced"), method="full", explicit=("method",))
    assert resolved(given, parameters=135_000_000, rows=10).lora_rank is None


def test_presets_scale_with_model_and_data():
    path = path_of("sft", "max-quality")
    small, large = (read(path, parameters=size, rows=10) for size in (135_000_000, 70e9))  # type: ignore[arg-type]
    assert (small.options["method"], large.options["method"]) == ("full", "dora")
    few, many = (read(path, parameters=1, rows=rows).options["epochs"] for rows in (100, 10**6))
    assert few > many


def test_a_resolved_run_is_replayed_as_it_was():
    once = resolved(asked(path_of("sft", "fast")), parameters=135_000_000, rows=10)
    assert resolved(once, parameters=135_000_000, rows=10) == once
    replayed = replace(once, explicit=tuple(once.as_dict()))
    assert resolved(replayed, parameters=70_000_000_000, rows=10**6) == replayed


@pytest.mark.parametrize(
    ("text", "words"),
    [("option: {epochs: 1}", "no option"), ("options: {epoch: 1}", "no option epoch")],
)
def test_a_preset_with_unknown_words_is_refused(tmp_path: Path, text: str, words: str):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        read(tmp_path / "x.yaml", parameters=1, rows=1)


def test_a_wrong_name_lists_those_there_are(capsys: pytest.CaptureFixture[str]):
    assert run(["sft", "--preset", "quick"]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in NAMES)


def test_a_run_takes_its_preset(tmp_path: Path, tiny_model: Path, capsys: Any):
    dry = ["sft", "--dry-run", "--model", str(tiny_model), "--max-seq-len", "256"]
    folder = ["--output", str(tmp_path / "out")]
    assert run([*dry, *folder, "--preset", "low-memory", "--lora-rank", "4"]) == 0
    recipe = yaml.safe_load(capsys.readouterr().out.split("recipe.yaml\n")[1].split("\n# ")[0])
    assert recipe["enable_activation_checkpointing"] is True
    assert recipe["model"]["quantize_base"] is True
    assert recipe["model"]["lora_rank"] == 4
    assert recipe["batch_size"] == 8
