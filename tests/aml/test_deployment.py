"""A registered model on an endpoint: what was sent is run, and answers."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from entrypoint.errors import ExitCode
from entrypoint.zero_first import free_port
from scripts.aml import serving
from tests.aml.canaries import nothing_secret
from tests.aml.control_plane import WS, ControlPlane
from tests.aml.storage import place_of
from tests.aml.waiting import wait_until

pytestmark = pytest.mark.e2e


def test_a_registered_model_is_deployed_and_what_was_sent_answers(
    aml, plane: ControlPlane, desk: Path, tiny_model: Path
):
    at = "tunecask/small/final"
    plane.storage.upload(tiny_model, ("workspaceblobstore", at))
    uri = f"azureml://datastores/workspaceblobstore/paths/{at}"
    registered = {"properties": {"modelUri": uri, "modelType": "custom_model"}}
    plane.asset("PUT", f"{WS}/models/small/versions/1", {}, registered)
    size = ("--size", "Standard_NC24ads_A100_v4")
    for made in ("created", "is there"):
        code, said = aml("deploy", *size, "--model", "small", "--deployment", "first")
        assert (code, f"environment tunecask-serving:{serving_version(plane)}: {made}" in said) == (
            0, True,
        ), said  # fmt: skip
        assert "endpoint small: https://small.localhost/score" in said
    assert plane.calls("PUT", "/environments/tunecask-serving/versions/") == 1
    endpoint = plane.resources[f"{WS}/onlineEndpoints/small"]
    assert endpoint["properties"]["traffic"] == {"first": 100}
    assert endpoint["properties"]["authMode"] == "AADToken"
    sent = plane.resources[f"{WS}/onlineEndpoints/small/deployments/first"]["properties"]
    assert sent["instanceType"] == size[1]
    check_answers(plane, sent, desk / "endpoint")
    code, said = aml("deploy", "--model", "none", *size)
    assert (code, "there is no model none" in said) == (ExitCode.MODEL, True), said
    code, said = aml("deploy", "--model", "small", "--delete")
    assert (code, "endpoint small: deleted" in said) == (0, True), said
    assert not [path for path in plane.resources if "/onlineEndpoints/" in path]
    code, said = aml("deploy", "--model", "small", "--delete")
    assert (code, "there is no endpoint small" in said) == (ExitCode.SETTINGS, True), said
    nothing_secret(plane, desk)


def serving_version(plane: ControlPlane) -> str:
    found = [path for path in plane.resources if "/environments/tunecask-serving/" in path]
    return found[0].rpartition("/")[2] if found else ""


def check_answers(plane: ControlPlane, sent: dict[str, Any], folder: Path) -> None:
    """Run Azure ML's server with the script and the model of a deployment, and ask it."""
    code = plane.storage.download(
        place_of(plane.located(sent["codeConfiguration"]["codeId"])), folder / "code"
    )
    model = plane.storage.download(place_of(plane.located(sent["model"])), folder / "models" / "1")
    script = code / sent["codeConfiguration"]["scoringScript"]
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        # the stand-in's certificate is not the package registry's
        patch.delenv("REQUESTS_CA_BUNDLE")
        python = serving.installed(os.environ)
    command = serving.argv(python, script, model, port)
    with (
        (folder / "server.txt").open("wb") as log,
        subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as server,
    ):
        try:
            asked = {"messages": [{"role": "user", "content": "Oslo?"}], "max_new_tokens": 4}
            wait_until(lambda: server.poll() is not None or asks(port, None)[0] == 200)
            status, said = asks(port, asked)
            assert (status, list(said)) == (200, ["text"]), (folder / "server.txt").read_text()
            assert asks(port, {"prompt": ""}) == (400, {"error": "prompt is no text"})
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def asks(port: int, body: dict[str, Any] | None) -> tuple[int, Any]:
    """Status and answer; without a body, whether the server is alive."""
    request = Request(
        f"http://127.0.0.1:{port}/{'score' if body else ''}",
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=120) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if body else text
    except HTTPError as error:
        return error.code, json.loads(error.read())
    except URLError:
        return 0, None
