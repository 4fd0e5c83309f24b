"""The command blocks of README and docs/, and what is said of them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>needs|tested): (?P<what>.+?) -->\n)?"
    r"^```(?:console|bash|sh)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
NEEDS = ("gpu", "azure", "hub")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A fenced block of commands."""

    document: str
    """Its path in the project."""
    mark: str | None
    """`needs` or `tested`."""
    what: str | None
    """What it needs, or the test that runs it."""
    commands: tuple[str, ...]
    """Whole lines, without the prompt; empty when the block has no prompt."""


def blocks(path: Path) -> list[Block]:
    """All of a document."""
    return [
        Block(
            document=str(path.relative_to(ROOT)),
            mark=found["mark"],
            what=found["what"],
            commands=commands(found["text"]),
        )
        for found in BLOCK.finditer(path.read_text("utf-8"))
    ]


def commands(text: str) -> tuple[str, ...]:
    """The commands of a block: lines after a prompt, joined where they go on."""
    joined = re.sub(r"\\\n\s*", "", text)
    return tuple(line[2:] for line in joined.splitlines() if line.startswith("$ "))


def words(command: str) -> list[str]:
    """As a shell splits it, without its comment."""
    return shlex.split(command, comments=True)
