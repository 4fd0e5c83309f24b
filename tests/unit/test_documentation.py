"""The documents: generated pages are up to date, links lead somewhere, and both READMEs say the
same. The site is in tests/e2e/test_site.py."""

import os
import re
from pathlib import Path

import pytest

from scripts.docs import commands, hooks, messages
from tests.documents import BLOCK, ROOT

DOCS = ROOT / "docs"
KOREAN = ROOT / "README.ko.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", re.M)
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
GENERATED = {
    "commands.md": commands.render,
    "messages.md": lambda: messages.render(ROOT / "entrypoint"),
}


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_up_to_date(name: str):
    text = GENERATED[name]()
    if os.environ.get("TUNECASK_UPDATE_GOLDEN"):
        (DOCS / name).write_text(text, "utf-8")
    assert text == (DOCS / name).read_text("utf-8"), f"docs/{name}: run `make golden`"


def test_every_message_has_an_entry_with_its_code(tmp_path: Path):
    source = (
        "raise DataError(f'{name} has no rows' if x else 'nothing' + ' here', hint='add some')\n"
        "raise ChildError(3, 'it ended')\nraise SettingsError(text)\nraise ValueError('ours')\n"
    )
    (tmp_path / "module.py").write_text(source)
    assert messages.render(tmp_path).partition("\n## ")[2].splitlines() == [
        "4: Data", "", "| message | to do |", "|---|---|", "| nothing here | add some |",
        "| … has no rows | add some |", "",
        "## The code of the process that failed", "", "| message | to do |", "|---|---|",
        "| it ended |  |",
    ]  # fmt: skip


def test_every_need_has_words_on_the_site():
    from tests.documents import NEEDS

    assert set(NEEDS) == set(hooks.NEEDS)


def slug(heading: str) -> str:
    """The anchor that a forge gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.strip().replace(" ", "-")


@pytest.mark.parametrize("name", ["README.md", "README.ko.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str):
    text = (ROOT / name).read_text("utf-8")
    for link in LINK.findall(FENCE.sub("", text)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = ROOT / path if path else ROOT / name
        assert target.exists(), f"{name}: {link}"
        if anchor:
            headings = HEADING.findall(FENCE.sub("", target.read_text("utf-8")))
            assert anchor in {slug(title) for _, title in headings}, f"{name}: {link}"


def test_both_readmes_have_the_same_commands_headings_and_pictures():
    english, korean = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.ko.md"))
    assert [found["text"] for found in BLOCK.finditer(korean)] == [
        found["text"] for found in BLOCK.finditer(english)
    ]
    levels = [
        [level for level, _ in HEADING.findall(FENCE.sub("", text))] for text in (english, korean)
    ]
    assert levels[0] == levels[1]
    pictures = [re.findall(r"!\[.*?\]\((.+?)\)", text) for text in (english, korean)]
    assert pictures[0] == pictures[1]
