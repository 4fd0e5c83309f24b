"""Where the shipped recipe templates are, and reading one."""

from importlib import resources
from pathlib import Path

from entrypoint.errors import SettingsError
from entrypoint.settings import Objective

CHECKOUT = Path(__file__).parents[1] / "recipes"
"""The folder of a checkout; an installed package carries a copy inside itself."""
SUFFIX = ".yaml.j2"


def folder() -> Path:
    if CHECKOUT.is_dir() and any(CHECKOUT.glob(f"*{SUFFIX}")):
        return CHECKOUT
    return Path(str(resources.files("entrypoint").joinpath("recipes")))


def shipped(objective: Objective) -> Path:
    """The template of an objective; the method is among the values that it is rendered with."""
    return folder() / f"{objective}{SUFFIX}"


def read(template: Path) -> str:
    """The template's text.

    Raises:
        SettingsError: it is missing or not text.
    """
    try:
        return template.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the recipe template cannot be read: {error}",
            where="--recipe or TRAIN_RECIPE",
            hint=f"the shipped templates are in {folder()}",
        ) from error
