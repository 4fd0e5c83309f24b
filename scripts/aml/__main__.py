"""`python -m scripts.aml`, which the targets aml-* of the Makefile call."""

from scripts.aml.cli import main

main()
