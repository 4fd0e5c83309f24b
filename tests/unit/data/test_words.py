"""entrypoint.data.leakage and near: text that two places share."""

from pathlib import Path

import pyarrow as pa
import pytest

from entrypoint.data.arrays import MESSAGES
from entrypoint.data.checks import policies
from entrypoint.data.folder import Request
from entrypoint.data.leakage import Leakage
from entrypoint.data.prepare import prepare
from entrypoint.data.source import locate
from tests.unit.data.sets import lines, read, turn

DOCUMENT = "In a hole in the ground there lived a creature who liked long walks, and tea at five."


def met(documents: list[str], text: str) -> bool:
    table = pa.table({"messages": pa.array([[turn("user", text)]], MESSAGES)})
    return bool(Leakage(documents).met(table, str)["leakage"][0])


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        (f"Well. {DOCUMENT.upper()} So it was.", True),
        ("In a hole in the ground there lived a creature who liked long dogs", True),
        ("In a hole in the ground there lived a creature who liked dogs", False),
        ("tea at five", False),
    ],
)
def test_a_run_of_thirteen_words_leaks(text: str, leaks: bool):
    assert met([DOCUMENT, "tea at five"], text) is leaks


def test_a_short_document_leaks_as_a_whole():
    assert met(["what is the capital city of france"], "Say: what is the capital city of France?")


def test_rows_that_nearly_repeat_an_earlier_one_are_found(tmp_path: Path):
    from entrypoint.data.near import NearDuplicates

    path = tmp_path / "rows.jsonl"
    words = [f"w{n}" for n in range(60)]
    texts = [" ".join(words), " ".join([*words[:-1], "other"]), " ".join(words[::-1])]
    path.write_bytes(lines([{"text": text} for text in texts]))
    request = Request(policies=policies(["near-duplicates=drop"]))
    source = locate(str(path), tmp_path)
    found = prepare(source, request, tmp_path / "out", (NearDuplicates(0.8),))
    assert found.findings.by_check["near-duplicates"].examples == [f"{path}, line 2"]
    assert [row["text"] for row in read(tmp_path / "out" / "train.jsonl")] == [texts[0], texts[2]]
