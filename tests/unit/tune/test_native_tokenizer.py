"""Models with only a sentencepiece or tiktoken file: torchtune's own tokenizers."""

import base64
import io
import json
import shutil
from pathlib import Path

import pytest

from entrypoint.tune import compat

compat.apply()

from entrypoint.cli import run  # noqa: E402
from entrypoint.errors import ModelError  # noqa: E402
from entrypoint.models.source import load  # noqa: E402
from entrypoint.models.tokenizers import SENTENCEPIECE, TIKTOKEN, native_tokenizer  # noqa: E402
from entrypoint.tune.native_tokenizer import NativeTokenizer  # noqa: E402

CONVERSATION = [
    {"role": "system", "content": "Reply in JSON."},
    {"role": "user", "content": "A room in Oslo"},
    {"role": "assistant", "content": "Oslo it is"},
    {"role": "user", "content": "Another one"},
    {"role": "assistant", "content": "Rome it is"},
]


def write_sentencepiece(path: Path) -> None:
    from sentencepiece import SentencePieceTrainer

    sentences = ["a room in oslo or rome", "reply in JSON", "Oslo it is, Rome it is", "another one"]
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 20),
        model_writer=model,
        vocab_size=280,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def write_tiktoken(path: Path) -> None:
    lines = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    path.write_text("".join(lines))


WRITERS = {"sentencepiece": write_sentencepiece, "tiktoken": write_tiktoken}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a tokenizer.model for each format."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in WRITERS}
    for kind, folder in folders.items():
        WRITERS[kind](folder / "tokenizer.model")
    return folders


CASES = [("sentencepiece", family) for family in SENTENCEPIECE] + [
    ("tiktoken", family) for family in TIKTOKEN
]


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_a_text_has_a_beginning_and_an_end(files, kind: str, family: str):
    component = native_tokenizer(files[kind], {"tokenizer.model"}, family)
    tokenizer = NativeTokenizer(component, str(files[kind] / "tokenizer.model"), max_seq_len=5)
    found, stock = tokenizer({"text": "Oslo it is"}), tokenizer.tokenizer
    assert found["tokens"] == stock.encode("Oslo it is", add_bos=True, add_eos=True)[:5]
    assert found["mask"] == [True, False, False, False, False]


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_ids_are_torchtunes_and_answers_alone_are_trained(files, kind: str, family: str):
    from torchtune.config._utils import _get_component_from_path
    from torchtune.data import Message

    component = native_tokenizer(files[kind], {"tokenizer.model"}, family)
    assert component == {"sentencepiece": SENTENCEPIECE, "tiktoken": TIKTOKEN}[kind][family]
    path = str(files[kind] / "tokenizer.model")
    conversation = CONVERSATION[1:] if family in ("Mistral", "Gemma", "Gemma 2") else CONVERSATION
    stock = _get_component_from_path(component)(path)
    messages = [Message(role=turn["role"], content=turn["content"]) for turn in conversation]
    expected = stock({"messages": messages})["tokens"]
    for train_on, (first, second) in {"all": (True, True), "last": (False, True)}.items():
        tokenizer = NativeTokenizer(component, path, train_on=train_on)
        encoded = tokenizer({"messages": conversation})
        assert encoded["tokens"] == expected
        trained = stock.decode(
            [
                token
                for token, masked in zip(encoded["tokens"], encoded["mask"], strict=True)
                if not masked
            ]
        )
        assert ("Oslo it is" in trained, "Rome it is" in trained) == (first, second)
        assert "room" not in trained
        assert "Another" not in trained
    cut = NativeTokenizer(component, path, max_seq_len=5)({"messages": conversation})
    assert cut["tokens"] == expected[:5]


def test_tools_are_refused(files):
    component = SENTENCEPIECE["Llama"]
    tokenizer = NativeTokenizer(component, str(files["sentencepiece"] / "tokenizer.model"))
    with pytest.raises(ValueError, match="Llama2Tokenizer cannot write tools"):
        tokenizer({"messages": CONVERSATION, "tools": [{"type": "function"}]})
    with pytest.raises(ValueError, match="cannot write tools"):
        tokenizer({"messages": [*CONVERSATION, {"role": "tool", "content": "4"}]})


@pytest.mark.parametrize(
    ("kind", "family"), [("sentencepiece", "Qwen3"), ("tiktoken", "Qwen2"), ("tiktoken", "Gemma")]
)
def test_a_family_without_such_a_tokenizer_is_refused(files, kind: str, family: str):
    with pytest.raises(ModelError, match=f"no {kind} tokenizer for {family}"):
        native_tokenizer(files[kind], {"tokenizer.model"}, family)


@pytest.fixture
def native_model(tiny_model: Path, files: dict[str, Path], tmp_path: Path) -> Path:
    """The tiny model with a sentencepiece file in place of its tokenizer."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "native"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(files["sentencepiece"] / "tokenizer.model", folder)
    return folder


def test_5_neither_kind_of_tokenizer(native_model: Path, capsys: pytest.CaptureFixture[str]):
    assert load(str(native_model), {}).native_tokenizer == SENTENCEPIECE["Llama"]
    (native_model / "tokenizer.model").unlink()
    assert run(["sft", "--model", str(native_model)]) == 5
    assert "no tokenizer.json, nor a tokenizer.model" in capsys.readouterr().err


@pytest.mark.e2e
def test_such_a_model_is_trained(
    native_model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(["sft", "--model", str(native_model), "--then", "eval"]) == 3
    assert "no chat template to apply" in capsys.readouterr().err
    command = ["sft", "--model", str(native_model), "--data", str(rows), "--max-seq-len", "128"]
    assert run([*command, "--output", str(tmp_path / "run"), "--max-steps", "2"]) == 0
    lines = (tmp_path / "run" / "logs" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["tokens_trained"] > 0 for line in lines)
    assert (tmp_path / "run" / "final" / "tokenizer.model").is_file()
    capsys.readouterr()
    assert run(["models", str(native_model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"] == "tokenizer.model"


def test_prepare_says_that_such_tokens_cannot_be_counted(
    native_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["prepare", "--model", str(native_model), "--output", str(tmp_path / "out")]
    assert run(arguments) == 5
    assert "--no-tokens" in capsys.readouterr().err
