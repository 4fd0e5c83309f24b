"""A tokenizer that is new here, asked about while something else is done. Imports nothing heavy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from entrypoint.command import tokenizer_command
from entrypoint.data.tokenizer import place_of
from entrypoint.models.companions import FAST
from entrypoint.process import beside


@contextmanager
def meeting(model: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """While inside, a tokenizer that was never met is asked about, by a process beside this one.
    When that fails, Chat asks again and says why."""
    if not (model / FAST).is_file() or place_of(model, environ).is_file():
        yield
        return
    with beside(tokenizer_command(model), environ):
        yield
