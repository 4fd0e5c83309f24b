"""entrypoint.data.tokenizer: what transformers makes of a tokenizer, asked once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from transformers import AutoTokenizer

from entrypoint import meeting, preparation
from entrypoint.command import Command
from entrypoint.data import tokenizer
from entrypoint.data.tokenizer import load

TEXT = "Oslo<|tool|> is naïve."


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """Of a tokenizer to which tokenizer_config.json adds a token."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    extra = {"extra_special_tokens": ["<|tool|>"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | extra))
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"TRAIN_CACHE": str(tmp_path / "cache")}


def test_what_is_remembered_is_what_transformers_made(folder: Path, environ: dict[str, str]):
    theirs = AutoTokenizer.from_pretrained(folder)
    expected = theirs.encode(TEXT, add_special_tokens=False)
    for _ in range(2):
        found = load(folder, environ)
        ids = found.backend.encode(TEXT, add_special_tokens=False).ids
        assert ids == expected
        assert len(found) == len(theirs)
        assert found.decode(ids) == theirs.decode(expected)
        for name in ("chat_template", "special_tokens_map", "eos_token_id", "pad_token_id"):
            assert getattr(found, name) == getattr(theirs, name)
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.encode(TEXT, add_special_tokens=False).ids != expected


def test_transformers_is_asked_once_for_each_tokenizer(
    folder: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    asked = []
    stock = tokenizer._of_transformers
    monkeypatch.setattr(
        tokenizer, "_of_transformers", lambda folder: asked.append(folder) or stock(folder)
    )
    for _ in range(2):
        load(folder, environ)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load(folder, environ).chat_template == "{{ messages[0].content }}"
    assert len(asked) == 2


def test_a_cache_that_cannot_be_written_costs_time_alone(folder: Path, tmp_path: Path):
    (tmp_path / "cache").touch()
    found = load(folder, {"TRAIN_CACHE": str(tmp_path / "cache")})
    assert found.backend.encode(TEXT).ids


@pytest.mark.parametrize("met", [True, False])
def test_a_start_with_new_rows_imports_no_torch(
    met: bool, tiny_model: Path, rows: Path, tmp_path: Path, environ: dict[str, str]
):
    known = load(tiny_model, environ if met else {"TRAIN_CACHE": str(tmp_path / "other")})
    code = (
        "import sys\n"
        "from entrypoint import launch\n"
        "from entrypoint.cli import run\n"
        "def train(*_, **__):\n"
        "    sys.exit(', '.join({'torch', 'transformers', 'datasets'} & set(sys.modules)) or 75)\n"
        "launch.train = train\n"
        "run(sys.argv[1:])\n"
    )
    given = ("--model", tiny_model, "--data", rows, "--output", tmp_path / "run")
    ended = subprocess.run(
        (sys.executable, "-c", code, "sft", *map(str, given)),
        env=os.environ | environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 75, ended.stdout + ended.stderr
    assert any((tmp_path / "cache" / "checked").iterdir())
    # what was found out without torch is what it is with it
    (path,) = (tmp_path / "cache" / "tokenizers").iterdir()
    found = json.loads(path.read_text())
    assert found.pop("backend") == known.backend.to_str()
    assert found == {name: getattr(known, name) for name in found}


def test_a_tokenizer_that_cannot_be_asked_apart_is_asked_here(
    tiny_model: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    failing = Command(argv=(sys.executable, "-c", "raise SystemExit(1)"), environment={})
    monkeypatch.setattr(meeting, "tokenizer_command", lambda _: failing)
    assert preparation.chat_of(tiny_model, environ).tokenizer.backend.encode(TEXT).ids
