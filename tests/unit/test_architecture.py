"""The rules of the design: who may import what, and how fast the command line starts."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import entrypoint

PACKAGE = Path(entrypoint.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LIMIT_LINES = 300
"""Modules are kept under about this length."""

ORDER = (
    "errors", "units", "files", "noise", "hardware", "secrets", "gate", "settings", "run_folder",
    "status", "results", "topology",
    "allocator", "progress", "team", "zero_first", "hub", "models", "data", "methods", "schemes",
    "objectives", "machines", "activations", "memory", "inputs", "loggers", "tracking",
    "templates", "presets",
    "evaluation.request", "evaluation.expected",
    "plan", "render", "estimate", "fitting", "sizing", "rendering", "command", "process", "meeting",
    "manifest", "recorded", "launch", "stock",
    "nodes", "collect", "quantization", "quantizing", "chatting",
    "export", "uploading", "exporting",
    "comparison", "scoring", "comparing", "runs", "report", "reporting", "preparation",
    "pipeline", "replaying", "answers", "planning", "doctor",
    "parameters", "options", "commands", "cli",
)  # fmt: skip
"""Stages in the direction of the flow: none imports one behind it at module level."""


def imports(path: Path) -> set[str]:
    """Dotted names that the module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def users_of(package: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(name.split(".")[0] == package for name in imports(path))
    }


def stage(name: str) -> int | None:
    found = [index for index, prefix in enumerate(ORDER) if f"{name}.".startswith(f"{prefix}.")]
    return found[-1] if found else None


def test_torchtune_is_imported_in_tune_alone():
    assert users_of("torchtune")
    assert all(path.startswith("tune/") for path in users_of("torchtune"))


def test_click_lives_in_the_command_line_alone():
    allowed = {"cli.py", "options.py", "parameters.py"}
    assert all(path in allowed or path.startswith("commands/") for path in users_of("click"))


def test_processes_are_started_in_one_place():
    assert users_of("subprocess") == {"process.py"}


def test_the_hub_is_asked_in_one_place():
    assert users_of("huggingface_hub") == {"hub.py"}


def test_azure_is_never_imported_here():
    assert users_of("azure") == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_flow(path: Path):
    name = str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
    own = stage(name)
    if own is None:
        return
    for imported in imports(path):
        other = (
            stage(imported.removeprefix("entrypoint."))
            if imported.startswith("entrypoint.")
            else None
        )
        assert other is None or other <= own, f"{name} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_short_and_say_what_they_are(path: Path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LIMIT_LINES
    assert ast.get_docstring(ast.parse(text))


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from entrypoint.cli import run; run(['--help']); run(['sft', '--help'])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'lm_eval', 'omegaconf', 'rich'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    ended = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_dry_run_imports_no_torch():
    code = (
        "import sys; from entrypoint.cli import run; code = run(['sft', '--dry-run'])\n"
        "heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "sys.exit(code or ', '.join(sorted(heavy)) or 0)"
    )
    ended = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_tokenizer_is_asked_about_while_the_pipeline_is_imported():
    code = (
        "import contextlib, sys\n"
        "from entrypoint import cli, meeting\n"
        "@contextlib.contextmanager\n"
        "def asked(model, environ):\n"
        "    assert 'entrypoint.pipeline' not in sys.modules\n"
        "    print('asked about', model)\n"
        "    sys.exit(0)\n"
        "    yield\n"
        "meeting.meeting = asked\n"
        "cli.run(['sft', '--model', 'somewhere'])"
    )
    ended = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=False
    )
    assert ended.stdout == "asked about somewhere\n", ended.stderr
