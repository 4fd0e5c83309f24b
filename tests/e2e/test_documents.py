"""Every command block of README and docs/ is executed, or says by which test, or what it needs.

The commands are executed as they stand, in a folder that has what they name: a tiny model as
FOLDER, SMALL, LARGE and ORG/NAME, rows, and a finished run as outputs/RUN. What makes them light
is LIGHT, DRY and `scored_here`, and nothing else.
"""

import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from entrypoint import comparing, scoring
from entrypoint.cli import run
from entrypoint.evaluation.request import Evaluation, Request, read
from tests.documents import DOCUMENTS, NEEDS, ROOT, Block, blocks, words
from tests.image.test_compose import commands as commands_of_compose

pytestmark = pytest.mark.e2e

LIGHT = {
    "TRAIN_MODEL": "FOLDER",
    "TRAIN_MAX_SEQ_LEN": "512",
    "TRAIN_LIMIT": "2",
    "TRAIN_CALIBRATION_ROWS": "4",
    "TRAIN_MAX_NEW_TOKENS": "4",
    "TRAIN_CHAT_MAX_NEW_TOKENS": "4",
}
"""Variables for every command. An option that a document gives wins over them."""
DRY = ("sft", "dpo", "kd", "replay")
"""Commands that are started with TRAIN_DRY_RUN, unless a document bounds their steps itself."""
CODES = {"doctor": (0, 6), "--gate": (0, 8)}
"""Exit codes that say something of this machine, or of a tiny model, and not of the command."""
FIRST = "train sft --max-steps 24 --then eval --limit 20 --output outputs/first"
"""The quickstart's run. It is made once, before all documents, and is outputs/RUN as well."""
MODELS = ("FOLDER", "SMALL", "LARGE", "ORG/NAME")
WITHOUT_COPY = ("docs/quantization.md",)
"""Documents that make the quantized copy which outputs/RUN has elsewhere."""


def lines(count: int, make: object) -> str:
    return "".join(json.dumps(make(number)) + "\n" for number in range(count))  # type: ignore[operator]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder that documents speak of."""
    place = tmp_path_factory.mktemp("documents")
    for name in MODELS:
        (place / name).parent.mkdir(exist_ok=True)
        shutil.copytree(tiny_model, place / name)
    rows = lines(200, lambda n: {"prompt": f"Number {n}?", "completion": "Yes"})
    for name in ("ROWS.jsonl", "rows.jsonl", "held-out.jsonl"):
        (place / name).write_text(rows)
    (place / "bookings").mkdir()
    (place / "bookings" / "train.jsonl").write_text(rows)
    (place / "bookings" / "eval.jsonl").write_text(rows.replace("Number", "Page"))
    (place / "PAIRS.jsonl").write_text(
        lines(8, lambda n: {"prompt": f"{n}?", "chosen": "Yes.", "rejected": "No."})
    )
    (place / "rows.csv").write_text(
        "question,reply\n" + "".join(f"Number {n}?,Yes\n" for n in range(200))
    )
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, place)
        assert run(words(FIRST)[1:]) == 0
        shutil.copytree(place / "outputs" / "first", place / "outputs" / "RUN")
        assert run(["quantize", "--model", "outputs/RUN"]) == 0
    shutil.copytree(place / "outputs" / "first", place / "outputs" / "OTHER")
    for label, name in (("base", "a.json"), ("tuned", "b.json")):
        shutil.copy(place / "outputs" / "RUN" / "eval" / f"{label}.json", place / name)
    return place


def scored_here(request: Request, environ: Mapping[str, str], log: Path) -> Evaluation:
    """Score in the test's own process, which has imported all that once; others start processes."""
    from entrypoint.evaluation import harness

    harness.evaluate(request)
    return read(request.output)


def settle(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Stand in the folder, with LIGHT's variables."""
    for module in (scoring, comparing):
        patch.setattr(module, "score", scored_here)
    patch.chdir(folder)
    for name, value in LIGHT.items():
        patch.setenv(name, value)
    patch.setenv("TRAIN_CACHE", str(folder / "cache"))


@pytest.fixture
def scratch(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the place for one document."""
    folder = Path(shutil.copytree(place, tmp_path / "place"))
    settle(monkeypatch, folder)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # who is asked for something says nothing
    yield folder
    shutil.rmtree(folder)


def covered(block: Block) -> bool:
    """Whether a block is executed elsewhere, or cannot be here: it says so, or is known by name."""
    return block.mark is not None or (
        block.document == "README.md"
        and bool(block.commands)
        and set(block.commands) <= set(commands_of_compose())
    )


def execute(command: str) -> None:
    """One command, as it stands but for LIGHT and DRY."""
    name, *arguments = words(command)
    if name == "make":
        # what it would run; CI itself is `make setup`, `make test` and the demo
        plan = subprocess.run(
            ("make", "--dry-run", *arguments), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert plan.returncode == 0, f"{command}: {plan.stderr}"
        return
    assert name == "train", f"{command}: no test runs this; mark its block, see tests/documents.py"
    codes = {code for word in arguments for code in CODES.get(word, ())} or {0}
    with pytest.MonkeyPatch.context() as patch:
        if arguments[0] in DRY and "--max-steps" not in arguments:
            patch.setenv("TRAIN_DRY_RUN", "true")
        assert run(arguments) in codes, command


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_document_work(path: Path, scratch: Path):
    name = str(path.relative_to(ROOT))
    if name in WITHOUT_COPY:
        shutil.rmtree(scratch / "outputs" / "RUN" / "quantized")
    for block in blocks(path):
        if covered(block):
            continue
        assert block.commands, f"{name}: a block without a prompt ($) is no command"
        for command in block.commands:
            if command != FIRST:
                execute(command)


def test_the_quickstarts_run_is_the_one_that_was_made():
    assert FIRST in {
        command for path in DOCUMENTS for one in blocks(path) for command in one.commands
    }


def test_a_mark_is_true():
    """What a block needs is known, and the test that it names is there and speaks of it."""
    marked = [block for path in DOCUMENTS for block in blocks(path) if block.mark]
    assert marked
    for block in marked:
        if block.mark == "needs":
            assert block.what in NEEDS, block
        else:
            assert (ROOT / str(block.what)).is_file(), block


def test_a_block_that_nothing_covers_fails(scratch: Path):
    with pytest.raises(AssertionError, match="mark its block"):
        execute("rsync -a here there")
    with pytest.raises(AssertionError, match="no-such-option"):
        execute("train sft --no-such-option")
    assert "TRAIN_DRY_RUN" not in os.environ
