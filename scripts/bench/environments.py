"""An environment for each peer, made once and kept in the cache."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

PINS = Path(__file__).with_name("pins")
PACKAGES = {"trl": ("trl", "peft"), "litgpt": ("litgpt",), "torchtune": ("torchtune",)}
"""What of a peer's pins the table names."""


def python_of(peer: str, cache: Path) -> Path:
    """The Python of a peer's environment; installs what its pins say when it is not there."""
    pins = PINS / f"{peer}.txt"
    folder = cache / f"{peer}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if not ready.exists():
        print(f"installing {peer} into {folder}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = (str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        subprocess.run((*pip, "--requirement", str(pins)), check=True, stdout=sys.stderr)
        ready.touch()
    return python


def version_of(peer: str) -> str:
    """Name and version of a peer, from its pins."""
    pinned = dict(
        line.split("==") for line in (PINS / f"{peer}.txt").read_text().split() if "==" in line
    )
    return " + ".join(f"{name} {pinned[name]}" for name in PACKAGES[peer])
