"""`train prepare` of a data set on a hub: the unmodified `datasets` against a local server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.hub_server import HubServer
from tests.unit.data.sets import lines, read

pytestmark = pytest.mark.e2e

CARD = """---
configs:
- config_name: self_instruct
  data_files:
  - {split: train, path: self_instruct/train.jsonl}
- config_name: other
  data_files:
  - {split: train, path: other/train.jsonl}
---
"""


def rows(count: int, kind: str) -> list[dict[str, str]]:
    return [{"prompt": f"{kind} {n}?", "completion": f"{n}."} for n in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "README.md").write_text(CARD)
    for name in ("self_instruct", "other"):
        (folder / name).mkdir()
        (folder / name / "train.jsonl").write_bytes(lines(rows(100, name)))
    return folder


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[HubServer]:
    server = HubServer()
    server.add("HuggingFaceH4/helpful_instructions", folder)
    parts = tmp_path / "parts" / "data"
    parts.mkdir(parents=True)
    for part in ("train", "test"):
        table = pa.Table.from_pylist(rows(10, part))
        pyarrow.parquet.write_table(table, parts / f"{part}-00000-of-00001.parquet")
    server.add("someone/parts", parts.parent)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    # with the columns of the published set
    rated = [
        {"id": f"{n}", "source": "x", "system": "s", "prompt": f"{n}?", "chosen": "a",
         "rejected": "b"} for n in range(20)
    ]  # fmt: skip
    (pairs / "train.jsonl").write_bytes(lines(rated))
    server.add("jondurbin/truthy-dpo-v0.1", pairs)
    yield server
    server.close()


@pytest.fixture
def prepare(server: HubServer, tmp_path: Path):
    def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        return subprocess.run(
            (
                sys.executable, "-m", "entrypoint", "prepare", "--no-tokens",
                "--output", str(tmp_path / "out"), *map(str, arguments),
            ),
            env=os.environ | given | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return call


def test_a_preset_is_the_tutorials_data_set(prepare, server: HubServer, tmp_path: Path):
    ended = prepare("--preset", "helpful-instructions")
    assert ended.returncode == 0, ended.stderr
    train, held_out = (read(tmp_path / "out" / name) for name in ("train.jsonl", "eval.jsonl"))
    assert len(train) + len(held_out) == 10
    assert {row["messages"][0]["content"] for row in train + held_out} == {
        f"self_instruct {n}?" for n in range(10)
    }
    found = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert found["source"]["revision"] == server.repos["HuggingFaceH4/helpful_instructions"].commit


def test_the_other_preset_is_pairs(prepare, tmp_path: Path):
    ended = prepare("--preset", "truthy-dpo")
    assert ended.returncode == 0, ended.stderr
    train, held_out = (read(tmp_path / "out" / name) for name in ("train.jsonl", "eval.jsonl"))
    assert len(train) + len(held_out) == 20
    pair = next(row for row in train + held_out if row["prompt"][-1]["content"] == "7?")
    assert pair["prompt"][0] == {"role": "system", "content": "s"}
    assert pair["chosen"] == [{"role": "assistant", "content": "a"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "b"}]


def test_own_splits_are_taken_at_the_revision_asked_for(prepare, server: HubServer, tmp_path: Path):
    repo = server.repos["someone/parts"]
    ended = prepare("--data", f"{repo.name}@{repo.commit}")
    assert ended.returncode == 0, ended.stderr
    assert len(read(tmp_path / "out" / "eval.jsonl")) == 10


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nobody/nothing", ["no such public data set", "/datasets/nobody/nothing"]),
        ("HuggingFaceH4/helpful_instructions:nothing", ["self_instruct", "ORG/NAME:CONFIG"]),
        ("HuggingFaceH4/helpful_instructions@nothing", ["no revision nothing"]),
    ],
)
def test_what_is_not_there(prepare, reference: str, words: list[str]):
    ended = prepare("--data", reference)
    assert ended.returncode == 4
    for word in words:
        assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_gated_data_set_needs_a_token_that_may_read_it(prepare, server: HubServer):
    repo = server.repos["HuggingFaceH4/helpful_instructions"]
    repo.gated, repo.token = True, "hf_right"
    ended = prepare("--data", repo.name, "--split", "train")
    assert ended.returncode == 4
    assert f"{repo.name} is gated" in ended.stderr
    assert "HF_TOKEN" in ended.stderr
    assert prepare("--data", f"{repo.name}:other", HF_TOKEN="hf_right").returncode == 0


def test_a_split_that_is_not_there(prepare):
    ended = prepare("--data", "someone/parts", "--split", "nothing")
    assert ended.returncode == 4
    assert "train" in ended.stderr
