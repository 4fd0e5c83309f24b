"""The site of docs/ in a browser."""

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CUT_OFF = """[...document.querySelectorAll(".wy-table-responsive, pre, pre code")]
    .filter(one => one.scrollWidth > one.clientWidth + 1)
    .map(one => one.textContent.trim().slice(0, 60))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        (
            sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict",
            "--config-file", "scripts/docs/mkdocs.yml", "--site-dir", str(folder),
        ),
        cwd=ROOT, check=True,
    )  # fmt: skip
    return folder


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
