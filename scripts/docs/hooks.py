"""Hooks of MkDocs: what a comment before a block of commands says is shown to readers."""

import re
from typing import Any

MARK = re.compile(r"^<!-- (needs|tested): (.+?) -->$", re.M)
NEEDS = {"gpu": "Needs a GPU.", "azure": "Needs Azure.", "hub": "Needs the model hub."}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn marks into a line; what a block is tested by is of no use on the page."""
    return MARK.sub(lambda mark: f"*{NEEDS[mark[2]]}*" if mark[1] == "needs" else "", markdown)
