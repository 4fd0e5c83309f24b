"""Runs a recipe of torchtune's, or of the user's own, in a process that torchrun has started.

torchrun starts a recipe's file by itself, where torchtune would not even import. So `tune run` is
made to start this module, with the recipe as its first argument.
"""

import functools
import runpy
import sys
from typing import Any

from entrypoint import noise
from entrypoint.tune import compat, cpu

OURS = "entrypoint."
"""Recipes of this package apply what they need themselves."""


def apply() -> None:
    """Have `tune run` start distributed recipes through this module."""
    from torchtune._cli.run import Run

    stock = Run._run_distributed
    if getattr(stock, "__module__", None) == __name__:
        return

    @functools.wraps(stock, assigned=())
    def run_distributed(self: Any, args: Any, is_builtin: bool) -> None:
        if not args.recipe.startswith(OURS):
            args.recipe_args = [args.recipe, *args.recipe_args]
            args.recipe, is_builtin = __spec__.name, False
        stock(self, args, is_builtin)

    Run._run_distributed = run_distributed


def main() -> None:
    """`python -m entrypoint.tune.stock FILE.py|DOTTED.NAME ARGUMENTS…`"""
    noise.silence()
    compat.apply()
    cpu.apply()
    recipe, *rest = sys.argv[1:]
    sys.argv = [recipe, *rest]
    if recipe.endswith(".py"):
        runpy.run_path(recipe, run_name="__main__")
    else:
        runpy.run_module(recipe, run_name="__main__")


if __name__ == "__main__":
    main()
