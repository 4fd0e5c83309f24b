"""`python -m entrypoint` is `train`."""

from entrypoint.cli import main

main()
