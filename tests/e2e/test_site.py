"""The site of docs/, read and in a browser, and README's pictures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from scripts.docs import pictures

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CUT_OFF = """[...document.querySelectorAll(".wy-table-responsive, pre, pre code")]
    .filter(one => one.scrollWidth > one.clientWidth + 1)
    .map(one => one.textContent.trim().slice(0, 60))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made without a warning."""
    folder = tmp_path_factory.mktemp("site")
    ended = subprocess.run(
        (
            sys.executable, "-m", "mkdocs", "build", "--strict",
            "--config-file", "scripts/docs/mkdocs.yml", "--site-dir", str(folder),
        ),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr
    return folder


def test_every_document_is_a_page_and_nothing_is_fetched_from_elsewhere(site: Path):
    pages = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= pages
    text = (site / "from-the-lab.html").read_text("utf-8")
    assert "<em>Needs Azure.</em>" in text
    assert "tested:" not in text
    linked = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"([^\"]+)\"", text)
    assert linked
    assert not [link for link in linked if "//" in link]


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_on_any_page(site: Path, browser: Browser, width: int):
    tab = browser.new_page(viewport={"width": width, "height": 900})
    pages = sorted(set(site.glob("*.html")) - {site / "404.html"})
    assert len(pages) > 20
    found = {}
    for page in pages:
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, page.name
        found[page.name] = tab.evaluate(CUT_OFF)
    assert {name: texts for name, texts in found.items() if texts} == {}
    tab.close()


def test_a_terminal_is_drawn_from_its_scores_on_without_a_font_from_elsewhere(tmp_path: Path):
    shown = "earlier\r\n\x1b[3membedded: 50 rows\x1b[0m\r\n 1%\r99% done\r\n"
    pictures.draw(shown, "train sft", tmp_path / "terminal.svg")
    text = (tmp_path / "terminal.svg").read_text("utf-8").replace("&#160;", " ")
    assert "embedded: 50 rows" in text
    assert "99% done" in text
    assert "earlier" not in text
    assert "@font-face" not in text
