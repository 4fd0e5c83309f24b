"""entrypoint.progress: how far a download is, of one file and of all."""

import sys

import pytest

from entrypoint import progress as module
from entrypoint.progress import Progress, gb

FILE, ALL, DONE = 3_000_000, 10_000_000, 4_000_000


def fetch_half(shown: Progress) -> None:
    bar = shown.file_bar()
    with bar(desc="a.safetensors", total=FILE, initial=0, unit="B", unit_scale=True) as file:
        file.update(FILE // 2)


def test_a_terminal_shows_a_bar_of_the_file_and_one_of_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = Progress(ALL, DONE)
    fetch_half(shown)
    shown.close()
    text = capsys.readouterr().err
    assert "a.safetensors:   0%|" in text
    assert "all files:  40%|" in text
    assert "all files:  55%|" in text


def test_elsewhere_a_line_now_and_then_has_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    shown = Progress(ALL, DONE)
    fetch_half(shown)
    assert capsys.readouterr().err == "", "not for every block"
    monkeypatch.setattr(module, "LINE_EVERY_S", -1.0)
    fetch_half(shown)
    assert capsys.readouterr().err == (
        "a.safetensors: 1.5 MB of 3.0 MB, all files: 7.0 MB of 10.0 MB\n"
    )


@pytest.mark.parametrize(
    ("count", "text"), [(999, "1 kB"), (23_456_789, "23.5 MB"), (15e9, "15.00 GB")]
)
def test_bytes_are_written_for_people(count: int, text: str):
    assert gb(count) == text
