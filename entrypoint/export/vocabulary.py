"""A tokenizer.json as the vocabulary of a GGUF file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entrypoint.errors import ModelError
from entrypoint.models.companions import FAST

if TYPE_CHECKING:
    import gguf

SPLITTERS = {
    r"\p{N}{1,3}|": "llama-bpe",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|": "qwen2",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|": "tekken",
}
"""A part of the expression that splits text -> llama.cpp's name for it."""

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's kinds of tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Tokens of byte-level BPE, and what goes with them."""

    splitter: str
    """llama.cpp's name of how text is split before its pairs are merged."""
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: tuple[tuple[str, int], ...]
    """bos, eos, unk and pad -> id."""
    adds_bos: bool
    chat_template: str | None

    def write(self, writer: "gguf.GGUFWriter") -> None:
        """Add it to a GGUF file."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.splitter)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        writer.add_token_merges(self.merges)
        for name, token in self.special:
            getattr(writer, f"add_{name}_token_id")(token)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_space_prefix(False)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def read(folder: Path, size: int) -> Vocabulary:
    """The vocabulary of a model's folder.

    Args:
        size: rows of the embedding; the vocabulary is filled up to it.

    Raises:
        ModelError: a tokenizer of another kind, or one that splits text in a way that llama.cpp
            has no name for.
    """
    path = folder / FAST
    try:
        written = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"GGUF export needs the folder's {FAST}: {error}", where=folder) from error
    splitter = _splitter(written, path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    by_id = {index: token for token, index in written["model"]["vocab"].items()}
    kinds = dict.fromkeys(by_id, NORMAL)
    for added in written.get("added_tokens", ()):
        by_id[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(by_id) >= size:
        raise ModelError(
            f"the tokenizer has {max(by_id) + 1} tokens, and the model room for {size}", where=path
        )
    named = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    return Vocabulary(
        splitter=splitter,
        tokens=tuple(by_id.get(index, f"[PAD{index}]") for index in range(size)),
        kinds=tuple(kinds.get(index, UNUSED) for index in range(size)),
        merges=tuple(
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in written["model"]["merges"]
        ),
        special=tuple((name, index) for name, index in named.items() if index is not None),
        adds_bos=tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id],
        chat_template=tokenizer.chat_template,
    )


def _splitter(written: dict[str, Any], where: Path) -> str:
    steps = written.get("pre_tokenizer") or {}
    parts = {one["type"]: one for one in steps.get("pretokenizers", [steps]) if one}
    kind = written["model"].get("type")
    if kind != "BPE" or "ByteLevel" not in parts:
        raise ModelError(
            f"GGUF export knows tokenizers of byte-level BPE; this is {kind} without it "
            "(SentencePiece, as in Llama 2 and Mistral 7B)",
            where=where,
            hint="use --to hf, and llama.cpp's own convert_hf_to_gguf.py",
        )
    if parts.keys() == {"ByteLevel"}:
        return "gpt-2"
    if parts.keys() == {"Digits", "ByteLevel"} and parts["Digits"].get("individual_digits"):
        return "smollm"
    if parts.keys() == {"Split", "ByteLevel"}:
        pattern = parts["Split"]["pattern"].get("Regex", "")
        for part, name in SPLITTERS.items():
            if part in pattern:
                return name
    raise ModelError(
        "the tokenizer splits text in a way that llama.cpp has no known name for",
        where=where,
        hint="use --to hf, and llama.cpp's own convert_hf_to_gguf.py",
    )
