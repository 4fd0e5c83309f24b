"""The page of a run in a browser: the machine's Chromium, without a window."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from entrypoint.reporting import report
from tests.reports import write_run

pytestmark = pytest.mark.e2e

SCREENSHOTS = "TUNECASK_SCREENSHOTS"
"""Variable that names a folder to keep the pictures in."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(write_run(tmp_path_factory.mktemp("runs") / "bookings"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = Path(os.environ.get(SCREENSHOTS, tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_readable_and_quiet(
    page: Path, browser: Browser, pictures: Path, width: int, scheme: str
):
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    tab.screenshot(path=pictures / f"report-{width}-{scheme}.png", full_page=True)
    assert said == []
    assert asked == [page.as_uri()]
    # nothing reaches over the edge, so that nothing scrolls sideways
    beyond = tab.evaluate(
        "() => [...document.querySelectorAll('body *')]"
        ".filter(one => one.getBoundingClientRect().right > innerWidth + 1"
        " && !one.closest('svg, .scores thead'))"
        ".map(one => one.outerHTML.slice(0, 80))"
    )
    assert beyond == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    # text on drawings has the size of small print at least
    sizes = tab.evaluate(
        "() => [...document.querySelectorAll('svg text')]"
        ".map(one => one.getBoundingClientRect().height).filter(height => height)"
    )
    assert min(sizes) >= 8
    background, ink = tab.evaluate(
        "() => [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.body).color]"
    )
    assert (brightness(background) < brightness(ink)) == (scheme == "dark")
    context.close()


def test_on_paper_what_is_folded_is_open(page: Path, browser: Browser, pictures: Path):
    context = browser.new_context(color_scheme="dark")
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.emulate_media(media="print")
    recipe = tab.locator("pre", has_text="data_files")
    assert recipe.bounding_box()
    assert (recipe.bounding_box() or {"height": 0})["height"] > 10
    assert brightness(tab.evaluate("getComputedStyle(document.body).backgroundColor")) == 255
    tab.pdf(path=pictures / "report.pdf", format="A4")
    context.close()


def brightness(colour: str) -> float:
    """Of a computed colour, `rgb(r, g, b)`."""
    numbers = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(numbers) / 3
