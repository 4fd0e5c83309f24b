"""Prints the installed torch as a constraint, or says that no image can be made with it.

The Dockerfiles run it in the base image, with nothing but the standard library:

    python base_torch.py pyproject.toml
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RANGE = re.compile(r'"torch>=(?P<least>[\d.]+),<(?P<limit>[\d.]+)"')


def release(text: str) -> tuple[int, ...]:
    """Major and minor number: (2, 8) of 2.8.0a0+cu126."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def check(installed: str | None, project: str) -> str:
    """The constraint that keeps `installed`.

    Args:
        installed: version of torch; None without one.
        project: text of pyproject.toml, which has the supported range.

    Raises:
        SystemExit: it is outside of the range.
    """
    found = RANGE.search(project)
    if found is None:
        raise SystemExit("error: pyproject.toml does not require torch as torch>=X,<Y")
    if installed and release(found["least"]) <= release(installed) < release(found["limit"]):
        return f"torch=={installed}"
    raise SystemExit(
        f"error: the base image has {f'torch {installed}' if installed else 'no torch'}, and"
        f" {found['least']} or later, but less than {found['limit']}, is needed:"
        " --build-arg LIFT_TORCH=yes replaces it"
    )


def main() -> None:
    try:
        installed = version("torch")
    except PackageNotFoundError:
        installed = None
    print(check(installed, Path(sys.argv[1]).read_text("utf-8")))


if __name__ == "__main__":
    main()
