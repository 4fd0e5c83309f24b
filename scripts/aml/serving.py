"""Azure ML's inference server on this machine, with the scoring script of an endpoint."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

from entrypoint.errors import ModelError, SettingsError
from entrypoint.models.embedded.materialise import cache_folder
from entrypoint.progress import say

SCRIPT = Path(__file__).with_name("score.py")
RELEASE = "azureml-inference-server-http==1.5.1"
"""It pins releases of pydantic and opentelemetry that the lock cannot have, so it lives apart."""
INSTALLED = (RELEASE, "azure-monitor-opentelemetry")
"""Of the second, the lock's release would hide the parts of it that the server brings."""
DEFAULT_PORT = 5001
OVERLAY = "tunecask.pth"


def argv(python: Path, script: Path, model: Path, port: int) -> tuple[str, ...]:
    """The command that serves a model."""
    return (
        str(python), "-m", "azureml_inference_server_http", "--entry_script", str(script),
        "--model_dir", str(model), "--port", str(port),
    )  # fmt: skip


def installed(environ: Mapping[str, str]) -> Path:
    """The Python of the server: an environment of its own on top of this one, made once.

    Raises:
        SettingsError: the packages cannot be installed.
    """
    tag = f"{RELEASE.partition('==')[2]}-py{sys.version_info.major}{sys.version_info.minor}"
    folder = cache_folder(environ) / "servers" / tag
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        say(f"installing {RELEASE}, once: {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        _install(python)
        ready.touch()
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # after the server's own: of what both have, the server gets its release
    (site / OVERLAY).write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n", "utf-8"
    )
    return python


def _install(python: Path) -> None:
    # the image's constraints are the lock
    environ = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    ended = subprocess.run(
        (
            str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            *INSTALLED,
        ),
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode:
        raise SettingsError(
            f"the server cannot be installed: {ended.stderr.strip()}",
            where=RELEASE,
            hint="it takes a package registry, once",
        )


def check_model(folder: Path) -> None:
    """Refuse what the scoring script would not find a model in.

    Raises:
        ModelError: no config.json, or several.
    """
    from scripts.aml import score

    try:
        score.model_folder(folder)
    except FileNotFoundError as error:
        raise ModelError(
            str(error), where="--local", hint="give a run's final/ or quantized/8da4w"
        ) from error


def serve(model: Path, port: int, environ: Mapping[str, str]) -> None:
    """Become the server.

    Raises:
        ModelError: the folder has no model.
    """
    check_model(model)
    command = argv(installed(environ), SCRIPT, model.absolute(), port)
    say(
        f"serving {model} at http://127.0.0.1:{port}/score, and at this machine's other addresses; "
        "Ctrl-C ends it"
    )
    sys.stdout.flush()
    os.execve(command[0], command, dict(environ))
