"""entrypoint.evaluation.__main__: how the process of an evaluation ends."""

import os
import sys
from types import SimpleNamespace

import pytest

import entrypoint.evaluation
from entrypoint.errors import DataError, ExitCode
from entrypoint.evaluation import __main__ as module
from entrypoint.evaluation.__main__ import main
from entrypoint.evaluation.request import Request


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, ExitCode.OK, ""),
        (DataError("no rows", where="x"), ExitCode.DATA, "Error: no rows\n  where: x\n"),
        (KeyboardInterrupt(), ExitCode.SIGINT, ""),
    ],
)
def test_errors_and_signals_end_in_a_code_and_no_traceback(
    raised: BaseException | None,
    code: int,
    said: str,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def evaluate(_: Request) -> None:
        if raised:
            raise raised

    harness = SimpleNamespace(evaluate=evaluate)
    monkeypatch.setitem(sys.modules, "entrypoint.evaluation.harness", harness)
    monkeypatch.setattr(entrypoint.evaluation, "harness", harness, raising=False)
    request = Request(
        label="x", checkpoint=tmp_path, device="cpu", dtype="fp32", output=tmp_path / "x.json"
    )
    monkeypatch.setattr(sys, "argv", ["evaluation", request.to_json()])
    assert main() == code
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(("cores", "threads"), [(2, "2"), (8, None)])
def test_threads_are_no_more_than_a_containers_quota_lets_run(
    cores: int, threads: str | None, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    # put back what is set here
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(module, "whole_cores", lambda: cores)
    monkeypatch.setattr(module, "affine_cores", lambda: 8)
    harness = SimpleNamespace(evaluate=lambda _: None)
    monkeypatch.setitem(sys.modules, "entrypoint.evaluation.harness", harness)
    monkeypatch.setattr(entrypoint.evaluation, "harness", harness, raising=False)
    request = Request(
        label="x", checkpoint=tmp_path, device="cpu", dtype="fp32", output=tmp_path / "x.json"
    )
    monkeypatch.setattr(sys, "argv", ["evaluation", request.to_json()])
    assert main() == ExitCode.OK
    assert os.environ.get("OMP_NUM_THREADS") == threads
