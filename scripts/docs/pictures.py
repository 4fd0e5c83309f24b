"""README's pictures, from a real run: `make pictures`.

The terminal is that of `train sft --then quantize,eval`, read from a pseudo-terminal and drawn by
rich; the page is the run's report, in the machine's Chromium.
"""

import argparse
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright
from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

IMAGES = Path(__file__).parents[2] / "docs" / "images"
COLUMNS, ROWS = 100, 50
WIDTH, HEIGHT = 1100, 1000
"""Of the page's picture, in pixels."""
LIMIT_BYTES = 300_000
BEGIN = "embedded: "
"""The line that the picture begins with: scores are what a run is made for."""
STYLE = re.compile(r"\x1b\[[0-9;]*m")
COMMAND = ("sft", "--then", "quantize,eval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", default="48", help="of the run")
    parser.add_argument("--limit", default="50", help="held-out rows that are scored")
    asked = parser.parse_args()
    options = ("--max-steps", asked.max_steps, "--limit", asked.limit)
    with TemporaryDirectory(prefix="tunecask-") as scratch:
        place = Path(scratch)
        shown = record((*COMMAND, *options, "--output", "outputs/demo"), place)
        IMAGES.mkdir(exist_ok=True)
        title = " ".join(("train", *COMMAND, *options))
        draw(shown.replace(f"{place.resolve()}/", ""), title, IMAGES / "terminal.svg")
        photograph(place / "outputs" / "demo" / "report.html", IMAGES / "report.png")
    for path in sorted(IMAGES.iterdir()):
        size = path.stat().st_size
        print(f"{path}: {size / 1000:,.0f} kB")
        if size > LIMIT_BYTES:
            sys.exit(f"{path} is larger than {LIMIT_BYTES / 1000:,.0f} kB")


def record(arguments: tuple[str, ...], place: Path) -> str:
    """What `train` writes to a terminal of COLUMNS columns.

    Raises:
        SystemExit: it failed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        (sys.executable, "-m", "entrypoint", *arguments),
        cwd=place, stdin=theirs, stdout=theirs, stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        seen += piece
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()
    if code := process.wait():
        sys.exit(code)
    return seen.decode()


def draw(shown: str, title: str, path: Path) -> None:
    """The last screen of a terminal, from the scores on."""
    lines = shown.replace("\r\n", "\n").split("\n")
    begin = max(
        number for number, line in enumerate(lines) if STYLE.sub("", line).startswith(BEGIN)
    )
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in lines[begin:]:
        console.print(Text.from_ansi(line.split("\r")[-1]))
    # the fonts that rich names lie on a server: a viewer's own are taken
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
    console.save_svg(str(path), title=title, code_format=form)


def photograph(page: Path, path: Path) -> None:
    """The top of a page.

    Raises:
        SystemExit: there is no Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("Chromium is needed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    main()
