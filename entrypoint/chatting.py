"""`train chat`: talk to checkpoints in the terminal, word by word."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from entrypoint import topology
from entrypoint.errors import ModelError, SettingsError
from entrypoint.files import read_json
from entrypoint.models.card import TORCH_DTYPE, is_quantized
from entrypoint.models.checkpoint import Checkpoint, locate
from entrypoint.models.source import short_name
from entrypoint.results import Told, nowhere
from entrypoint.settings import EMBEDDED, Device, Dtype

COMMANDS = "/exit ends, /reset forgets the conversation"
Message = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The options of `train chat`."""

    prompt: str | None
    system: str | None
    compare: bool
    base: str | None
    max_new_tokens: int
    temperature: float
    """0 takes the likeliest word each time."""
    seed: int
    device: Device
    dtype: Dtype


def chat(reference: str, asked: Asked, environ: Mapping[str, str], told: Told = nowhere) -> None:
    """Answer one prompt, or talk until the user leaves.

    Raises:
        SettingsError: nothing to compare with.
        ModelError: there is no such model, or it has no chat template.
    """
    world = topology.detect(asked.device, asked.dtype)
    found = locate(reference, environ, asked.base)
    sides = [found]
    if asked.compare:
        sides.insert(0, base_of(found, environ))
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    speakers = []
    for side in sides:
        errors.print(f"loading {side.adapter or side.folder}", markup=False, style="dim")
        speakers.append(Speaker(side, world.device, TORCH_DTYPE[world.dtype], asked))
    if asked.prompt is not None:
        opened = [_opening(asked) for _ in speakers]
        answers = exchange(speakers, opened, asked.prompt, sys.stdout)
        said = [
            {"model": speaker.label, "answer": answer}
            for speaker, answer in zip(speakers, answers, strict=True)
        ]
        told({"prompt": asked.prompt, "answers": said})
    else:
        converse(speakers, asked, input, sys.stdout)


def base_of(checkpoint: Checkpoint, environ: Mapping[str, str]) -> Checkpoint:
    """What a checkpoint was made from: an adapter's base, a run's.

    Raises:
        SettingsError: a model that nothing is known to be the base of.
    """
    if checkpoint.adapter:
        return Checkpoint(folder=checkpoint.folder, label="base", run=None)
    manifest = checkpoint.run and read_json(checkpoint.run.manifest)
    if manifest and (model := manifest.get("model")):
        known = model["reference"] if model["reference"] == EMBEDDED else model["folder"]
        return replace(locate(known, environ), label="base")
    raise SettingsError(
        f"nothing is known that {short_name(str(checkpoint.folder))} was made from",
        where="--compare",
        hint="give a run folder, its quantized copy, or an adapter to --model",
    )


class Speaker:
    """A model with its tokenizer, ready to answer.

    Args:
        dtype: torch's name of the number format; a quantized model keeps its own.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str, asked: Asked) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from entrypoint.noise import hide_loading_bars

        hide_loading_bars()
        self.label = checkpoint.label
        own = checkpoint.adapter
        folder: Path = checkpoint.folder
        if own is not None and (own / "tokenizer_config.json").is_file():
            folder = own
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        if not self.tokenizer.chat_template:
            raise ModelError(
                "the model has no chat template",
                where=folder,
                hint="talk to a model that was tuned on conversations",
            )
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            dtype="auto" if is_quantized(checkpoint.folder) else dtype,
            device_map=device,
        )
        if checkpoint.adapter:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, checkpoint.adapter)
        self.model.eval()
        self.asked = asked

    def answer(self, messages: Sequence[Message], show: Callable[[str], None]) -> str:
        """The next message, each piece shown as it comes.

        Raises:
            ModelError: the chat template does not take these messages.
        """
        import torch
        from jinja2 import TemplateError
        from transformers import TextStreamer

        try:
            inputs = self.tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
            ).to(self.model.device)
        except TemplateError as error:
            raise ModelError(f"the chat template does not take this: {error}") from error

        class Shown(TextStreamer):  # type: ignore[misc]
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                show(text)

        asked = self.asked
        torch.manual_seed(asked.seed)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
        if asked.temperature:
            sampling = {"do_sample": True, "temperature": asked.temperature}
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                max_new_tokens=asked.max_new_tokens,
                streamer=Shown(self.tokenizer, skip_prompt=True, skip_special_tokens=True),
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
                **sampling,
            )
        answer = output[0, inputs["input_ids"].shape[1] :]
        return str(self.tokenizer.decode(answer, skip_special_tokens=True))


def converse(
    speakers: Sequence[Any], asked: Asked, read: Callable[[str], str], out: IO[str]
) -> None:
    """Ask, answer, remember, until /exit or Ctrl-D; Ctrl-C ends an answer, or at the prompt all."""
    histories = [_opening(asked) for _ in speakers]
    print(COMMANDS, file=out)
    while True:
        try:
            text = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print(file=out)
            return
        if text == "/exit":
            return
        if text == "/reset":
            histories = [_opening(asked) for _ in speakers]
            continue
        if not text:
            continue
        try:
            answers = exchange(speakers, histories, text, out)
        except KeyboardInterrupt:
            # the unfinished exchange is forgotten
            print(file=out)
            continue
        for history, answer in zip(histories, answers, strict=True):
            history += _asking(text), {"role": "assistant", "content": answer}


def exchange(
    speakers: Sequence[Any], histories: Sequence[list[Message]], text: str, out: IO[str]
) -> list[str]:
    """Each speaker's answer: of one shown as it comes, of several side by side."""
    asked = [[*history, _asking(text)] for history in histories]
    if len(speakers) == 1:

        def show(piece: str) -> None:
            print(piece, end="", file=out, flush=True)

        answer = speakers[0].answer(asked[0], show)
        print(file=out)
        return [answer]
    answers = [
        speaker.answer(messages, lambda _: None)
        for speaker, messages in zip(speakers, asked, strict=True)
    ]
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in speakers:
        table.add_column(ratio=1)
    table.add_row(
        *(
            Panel(Text(answer.strip()), title=Text(speaker.label))
            for speaker, answer in zip(speakers, answers, strict=True)
        )
    )
    Console(file=out, highlight=False).print(table)
    return answers


def _opening(asked: Asked) -> list[Message]:
    return [{"role": "system", "content": asked.system}] if asked.system else []


def _asking(text: str) -> Message:
    return {"role": "user", "content": text}
