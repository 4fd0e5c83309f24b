"""Which tokenizer a model comes with."""

from collections.abc import Container
from pathlib import Path

from entrypoint.errors import ModelError
from entrypoint.models.companions import FAST, NATIVE, chat_template

CHAT_TOKENIZER = "entrypoint.tune.tokenizer.ChatTokenizer"
"""Import path of the tokenizer that writes with the model's own chat template."""
SENTENCEPIECE = {
    "Llama": "torchtune.models.llama2.Llama2Tokenizer",
    "Mistral": "torchtune.models.mistral.MistralTokenizer",
    "Gemma": "torchtune.models.gemma.GemmaTokenizer",
    "Gemma 2": "torchtune.models.gemma.GemmaTokenizer",
    "Phi": "torchtune.models.phi3.Phi3MiniTokenizer",
}
"""Family -> torchtune's tokenizer for a tokenizer.model in sentencepiece's format."""
TIKTOKEN = {"Llama": "torchtune.models.llama3.Llama3Tokenizer"}
"""The same in tiktoken's format."""
CONVERT = (
    "convert it: AutoTokenizer.from_pretrained(folder).save_pretrained(folder), and put the "
    "model's chat_template.jinja there"
)


def native_tokenizer(
    folder: Path, names: Container[str], family: str, *, chat: bool = True
) -> str | None:
    """Import path of torchtune's tokenizer when the model has only tokenizer.model; else None.

    Args:
        folder: holds what is read of the model.
        names: the files of the model.
        family: as the card has it.
        chat: there are conversations to write out.

    Raises:
        ModelError: a file is missing, there is no chat template, or torchtune has no tokenizer of
            that format for the family.
    """
    if FAST in names:
        if "tokenizer_config.json" not in names:
            raise ModelError("the model has no tokenizer_config.json", where=folder)
        if chat:
            check_chat_template(folder)
        return None
    if NATIVE not in names:
        raise ModelError(f"the model has no {FAST}, nor a {NATIVE}", where=folder, hint=CONVERT)
    kind, classes = (
        ("tiktoken", TIKTOKEN) if is_tiktoken(folder / NATIVE) else ("sentencepiece", SENTENCEPIECE)
    )
    if family not in classes:
        raise ModelError(
            f"the model has no {FAST}, and torchtune has no {kind} tokenizer for {family}",
            where=folder / NATIVE,
            hint=CONVERT,
        )
    return classes[family]


def is_tiktoken(path: Path) -> bool:
    """Whether a tokenizer.model is a list of `<base64> <rank>`, not sentencepiece's binary."""
    with path.open("rb") as file:
        first = file.readline(1000).split()
    return len(first) == 2 and first[1].isdigit()


def check_chat_template(folder: Path) -> None:
    """Make sure that the tokenizer can render a conversation.

    Raises:
        ModelError: it has no chat template.
    """
    if not chat_template(folder):
        raise no_chat_template(folder)


def no_chat_template(where: object) -> ModelError:
    return ModelError(
        "the model has no chat template, so a conversation cannot be written out for it",
        where=where,
        hint="use the instruct variant of the model, or put its chat_template.jinja there",
    )
