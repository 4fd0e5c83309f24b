"""Recipes are run in the test's own process, for which torchtune has to be importable."""

from entrypoint.tune import compat

compat.apply()
