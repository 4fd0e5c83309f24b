"""entrypoint.nodes: what node 0 says, and what another node makes of it."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from entrypoint import inputs, nodes
from entrypoint.data.dataset import Dataset
from entrypoint.data.writing import RowFile
from entrypoint.errors import SettingsError
from entrypoint.models.card import Model
from entrypoint.settings import Settings
from entrypoint.team import Team
from entrypoint.topology import Start
from tests.unit.factories import MODEL, plan


class Heard(Team):
    """The team of node 1, with what it hears."""

    def __init__(self, **words: Any) -> None:
        super().__init__(Start(rank=1, size=2, node=1, nodes=2))
        self.words = words

    def hear(self, word: str) -> Any:
        return self.words.get(word)


def model_in(folder: Path, weights: bytes = b"w" * 100_000) -> Model:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "m.safetensors").write_bytes(weights)
    return dataclasses.replace(
        MODEL, reference=str(folder), folder=folder, shards=("m.safetensors",)
    )


def rows_in(path: Path, sha256: str = "1") -> Dataset:
    file = RowFile(path=path, rows=10, sha256=sha256, longest=1)
    return Dataset(reference="x", train=file, evaluation=None)


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch):
    """Lets a node find these inputs."""

    def given(model: Model, rows: Dataset) -> None:
        found = inputs.Inputs(model=model, dataset=rows, teacher=None)
        monkeypatch.setattr(inputs, "find", lambda *_, **__: found)
        monkeypatch.setattr(inputs, "ensure_present", lambda *_: None)

    return given


def places(team: Team, **settings: Any) -> dict[str, str]:
    return nodes._places(Settings(**settings), os.environ, team)


def test_paths_of_the_recipe_become_those_of_the_node(tmp_path: Path, find):
    there = nodes.marked(model_in(tmp_path / "there"), rows_in(Path("/there/train.jsonl")))
    find(model_in(tmp_path / "here"), rows_in(Path("/here/train.jsonl")))
    moved = places(Heard(inputs=json.loads(json.dumps(there))))
    assert moved == {
        str(tmp_path / "there"): str(tmp_path / "here"),
        "/there/train.jsonl": "/here/train.jsonl",
    }
    recipe = (
        f"model: {{path: {tmp_path}/there}}\ntokenizer: {{path: {tmp_path}/there/tokenizer.json}}\n"
        f"rows: [/there/train.jsonl]\nother: {tmp_path}/there-too\nlr: 2.0e-3\nnone: null\n"
    )
    assert nodes.relocated(recipe, moved) == (
        f"model:\n  path: {tmp_path}/here\ntokenizer:\n  path: {tmp_path}/here/tokenizer.json\n"
        f"rows:\n- /here/train.jsonl\nother: {tmp_path}/there-too\nlr: 0.002\nnone: null\n"
    )


@pytest.mark.parametrize("shared", [False, True])
def test_a_node_keeps_the_paths_that_it_was_given_unless_storage_is_shared(
    tmp_path: Path, shared: bool
):
    here = [tmp_path / name for name in ("model", "rows.jsonl")]
    for path in here:
        path.touch()
    own = Settings(model=str(here[0]), data=str(here[1]), teacher="acme/large")
    ordered = {"model": "/0/model", "data": "/0/rows.jsonl", "teacher": "acme/large@c"}
    settings = nodes.followed(own, {**ordered, "shared_storage": shared, "dtype": "fp32"})
    paths = [settings.model, settings.data]
    assert paths == (["/0/model", "/0/rows.jsonl"] if shared else [str(path) for path in here])
    assert (settings.teacher, settings.dtype) == ("acme/large@c", "fp32")
    none_here = nodes.followed(Settings(model="acme/tiny"), {**ordered, "shared_storage": False})
    assert (none_here.model, none_here.data) == ("/0/model", "/0/rows.jsonl")


def test_3_other_weights_or_rows_than_those_of_node_0(tmp_path: Path, find):
    model, rows = model_in(tmp_path / "there"), rows_in(Path("/there/train.jsonl"))
    there = nodes.marked(model, rows)
    other = b"w" * 50_000 + b"x" * 50_000
    find(model_in(tmp_path / "here", other), rows)
    with pytest.raises(SettingsError, match="the model of this node"):
        places(Heard(inputs=there))
    find(model, rows_in(Path("/here/train.jsonl"), sha256="2"))
    with pytest.raises(SettingsError, match="the training rows of this node"):
        places(Heard(inputs=there))


def test_3_what_is_declared_shared_and_is_not_there(tmp_path: Path, find):
    inputs = {"model": [str(tmp_path / "absent"), "mark"]}
    with pytest.raises(SettingsError, match="TRAIN_SHARED_STORAGE"):
        places(Heard(inputs=inputs), shared_storage=True)


def test_the_orders_pin_what_was_found(tmp_path: Path):
    told: list[Any] = []

    class Telling(Heard):
        def tell(self, message: Any) -> None:
            told.append(json.loads(json.dumps(message)))

    team = Telling()
    commit = "c" * 40
    hub = dataclasses.replace(
        MODEL, reference="acme/tiny@main", folder=Path(f"/cache/acme--tiny/{commit}")
    )
    decided = plan(model=hub)
    nodes.announce(team, decided, "lr: 1\n")
    assert told == [], "one node has nobody to tell"
    decided = dataclasses.replace(decided, world=dataclasses.replace(decided.world, nodes=2))
    nodes.announce(team, decided, "lr: 1\n")
    orders = nodes.Orders(**told[0]["orders"])
    assert orders.recipe == "lr: 1\n"
    assert orders.settings["model"] == f"acme/tiny@{commit}"
    assert orders.settings["dtype"] == "fp32"
    Settings(**orders.settings)
