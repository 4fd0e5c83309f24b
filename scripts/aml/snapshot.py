"""The code snapshot of a job: a folder with what the job needs, and nothing else."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from entrypoint.files import write_text
from scripts.aml.job import Job

ROOT = Path(__file__).parents[2]
PROJECT = (
    "LICENSE", "pyproject.toml", "requirements.lock", "scripts/base_torch.py",
    "entrypoint", "recipes",
)  # fmt: skip
"""What an installation in a curated environment is made from."""
VAULT = "scripts/aml/vault.py"
IGNORED = ".amlignore"
IGNORE = "__pycache__/\n*.py[cod]\n.env\n.env.*\n.git/\noutputs/\ncheckpoints/\n*.safetensors\n"
"""The snapshot is made of named files; this keeps out what somebody puts there by hand."""


def contents(job: Job) -> dict[str, Path]:
    """Path in the snapshot -> file of this machine, sorted."""
    wanted: dict[str, Path] = {}
    if job.settings.install:
        wanted |= {name: ROOT / name for name in PROJECT}
    if job.settings.fetches_tokens:
        wanted["vault.py"] = ROOT / VAULT
    wanted |= job.command.shipped
    return files_of(wanted)


def files_of(wanted: Mapping[str, Path]) -> dict[str, Path]:
    """Name -> file for all files and all in folders, sorted; neither hidden ones nor caches."""
    return dict(sorted(_files(wanted)))


def _files(wanted: Mapping[str, Path]) -> Iterable[tuple[str, Path]]:
    for name, path in wanted.items():
        if path.is_file():
            yield name, path
        for file in path.rglob("*") if path.is_dir() else ():
            relative = file.relative_to(path)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
            if file.is_file() and not hidden:
                yield f"{name}/{relative.as_posix()}", file


def stage(files: Mapping[str, Path], folder: Path) -> None:
    """Make `folder` hold exactly these files and its .amlignore."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    write_text(folder / IGNORED, IGNORE)
