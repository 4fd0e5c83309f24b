"""entrypoint.chatting: conversations, with speakers that answer at once."""

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from entrypoint.chatting import Asked, Speaker, base_of, converse
from entrypoint.errors import SettingsError
from entrypoint.models.checkpoint import locate

ASKED = Asked(
    prompt=None, system="Be brief.", compare=False, base=None, max_new_tokens=8, temperature=0.0,
    seed=1, device="cpu", dtype="fp32",
)  # fmt: skip


class Echo(SimpleNamespace):
    """Says how many messages it has seen, and the last."""

    def answer(self, messages: list[dict[str, str]], show: Callable[[str], None]) -> str:
        if messages[-1]["content"] == "stop":
            raise KeyboardInterrupt
        said = f"{self.label} {len(messages)} {messages[-1]['content']}"
        for piece in said.split(" "):
            show(piece + " ")
        return said


def talk(lines: list[str | type[BaseException]], *labels: str) -> str:
    left = iter(lines)

    def read(_: str) -> str:
        line = next(left)
        if isinstance(line, str):
            return line
        raise line

    out = io.StringIO()
    converse([Echo(label=label) for label in labels], ASKED, read, out)
    assert next(left, None) is None
    return out.getvalue()


def test_what_was_said_is_remembered_with_the_system_message():
    said = talk(["hi", "", "again", "/exit"], "m")
    assert "m 2 hi" in said
    assert "m 4 again" in said


def test_reset_forgets_the_conversation():
    assert "m 2 again" in talk(["hi", "/reset", "again", "/exit"], "m")


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt, "/exit"])
def test_a_conversation_ends(end: str | type[BaseException]):
    talk([end], "m")


def test_ctrl_c_in_an_answer_ends_the_answer_alone():
    assert "m 4 again" in talk(["hi", "stop", "again", EOFError], "m")


def test_two_models_answer_side_by_side_each_with_its_own_memory():
    said = talk(["hi", "again", "/exit"], "base", "tuned")
    (line,) = [line for line in said.splitlines() if "base 4 again" in line]
    assert "tuned 4 again" in line


def test_words_are_shown_while_the_model_goes_on(tiny_model: Path):
    asked = dataclasses.replace(ASKED, max_new_tokens=24, temperature=2.0)
    speaker = Speaker(locate(str(tiny_model), {}), "cpu", "float32", asked)
    happened: list[str | None] = []
    speaker.model.register_forward_pre_hook(lambda *_: happened.append(None))
    said = speaker.answer([{"role": "user", "content": "Book Oslo."}], happened.append)
    shown = [(happened[:at].count(None), one) for at, one in enumerate(happened) if one]
    assert "".join(piece for _, piece in shown) == said
    # after how many tokens: not all at the end
    after = [tokens for tokens, _ in shown]
    assert after[0] < 5
    assert len(set(after)) > 5


def test_the_base_of_a_run_is_the_model_of_its_manifest(tiny_model: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(tiny_model, run / "final")
    model = {"reference": "ORG/NAME", "folder": str(tiny_model)}
    (run / "manifest.json").write_text(json.dumps({"model": model}))
    found = base_of(locate(str(run), {}), {})
    assert (found.folder, found.label) == (tiny_model, "base")


def test_a_model_that_nothing_is_known_of_has_no_base(tiny_model: Path):
    with pytest.raises(SettingsError, match="nothing is known"):
        base_of(locate(str(tiny_model), {}), {})
