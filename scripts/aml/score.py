"""Inside an endpoint: what Azure ML's inference server calls for a model that Tunecask has made.

It is shipped with the deployment alone; the image has `entrypoint`.

    POST /score  {"prompt": "…"} or {"messages": [{"role": "user", "content": "…"}]}
                 and max_new_tokens, temperature, seed
    answers      {"text": "…"}, or status 400 and {"error": "…"}
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

MODEL_DIR = "AZUREML_MODEL_DIR"
ROLES = ("system", "user", "assistant")
MOST_TOKENS = 4096
NUMBERS: dict[str, tuple[tuple[type, ...], int, int]] = {
    "max_new_tokens": ((int,), 1, MOST_TOKENS),
    "temperature": ((int, float), 0, 10),
    "seed": ((int,), 0, 2**63 - 1),
}
"""What a request may set, with its type and bounds."""
loaded: Any = None
"""The model, when the server has started."""


class Refused(ValueError):
    """A request that is none."""


def init() -> None:
    """Load the model, once for each process of the server."""
    global loaded
    from entrypoint import chatting, topology
    from entrypoint.models.card import TORCH_DTYPE
    from entrypoint.models.checkpoint import locate

    world = topology.detect("auto", "auto")
    found = locate(str(model_folder(Path(os.environ[MODEL_DIR]))), os.environ)
    asked = chatting.Asked(
        prompt=None, system=None, compare=False, base=None, max_new_tokens=512, temperature=0.0,
        seed=0, device="auto", dtype="auto",
    )  # fmt: skip
    loaded = chatting.Speaker(found, world.device, TORCH_DTYPE[world.dtype], asked)


def model_folder(root: Path) -> Path:
    """The folder of a registered model that transformers loads.

    Raises:
        FileNotFoundError: there is none, or several.
    """
    found = sorted(path.parent for path in root.rglob("config.json"))
    if len(found) != 1:
        raise FileNotFoundError(f"{root} has {len(found)} models instead of one: {found}")
    return found[0]


def run(body: str) -> Any:
    """Answer one request."""
    from entrypoint.errors import ModelError

    try:
        messages, settings = parse(body)
        # one process answers one request at a time
        loaded.asked = replace(loaded.asked, **settings)
        return {"text": loaded.answer(messages, lambda _: None)}
    except (Refused, ModelError) as error:
        from azureml_inference_server_http.api.aml_response import AMLResponse

        return AMLResponse({"error": str(error).splitlines()[0]}, 400, json_str=True)


def parse(body: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The conversation and the settings of a request.

    Raises:
        Refused: says what is wrong with it.
    """
    try:
        asked = json.loads(body)
    except json.JSONDecodeError as error:
        raise Refused(f"the request is no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Refused("the request is no object with a prompt or messages")
    unknown = sorted(set(asked) - {"prompt", "messages", *NUMBERS})
    if unknown:
        raise Refused(f"unknown key {unknown[0]}")
    if ("prompt" in asked) == ("messages" in asked):
        raise Refused("give either prompt or messages")
    defaults = {"max_new_tokens": 512, "temperature": 0.0, "seed": 0}
    settings = {name: _number(name, asked.get(name, default)) for name, default in defaults.items()}
    if "prompt" in asked:
        return [{"role": "user", "content": _text("prompt", asked["prompt"])}], settings
    return _messages(asked["messages"]), settings


def _messages(given: Any) -> list[dict[str, str]]:
    if not isinstance(given, list) or not given:
        raise Refused("messages is no list of messages")
    messages = []
    for number, message in enumerate(given):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise Refused(f"messages[{number}] has not just role and content")
        if message["role"] not in ROLES:
            raise Refused(f"messages[{number}].role is none of {', '.join(ROLES)}")
        content = _text(f"messages[{number}].content", message["content"])
        messages.append({"role": message["role"], "content": content})
    return messages


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Refused(f"{name} is no text")
    return value


def _number(name: str, value: Any) -> Any:
    kinds, least, most = NUMBERS[name]
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise Refused(f"{name} is no number from {least} to {most}")
    return value
