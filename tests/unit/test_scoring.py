"""entrypoint.scoring: how an evaluation in a run is started, and how it ends."""

from pathlib import Path

import pytest

from entrypoint import process, scoring
from entrypoint.errors import Interrupted
from entrypoint.process import Exit
from tests.unit.factories import plan


def test_a_run_that_was_interrupted_in_its_evaluation_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "run", lambda *_, **__: Exit(code=130, signal_received=2, tail=""))
    made = plan(tasks=("embedded",))
    with pytest.raises(Interrupted, match="the evaluation was interrupted") as caught:
        scoring.evaluate_checkpoint(made, "base", tmp_path, {})
    assert caught.value.exit_code == 130
    assert f"--output {made.folder.root} --resume auto" in str(caught.value.hint)
