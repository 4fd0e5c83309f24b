"""What a run was made from, so that it can be understood and repeated. Pure but for `gather`."""

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from entrypoint.data.folder import DESCRIPTION
from entrypoint.files import sha256_of
from entrypoint.models.card import Model
from entrypoint.models.identity import mark, pinned
from entrypoint.plan import Plan
from entrypoint.process import git_revision

MANIFEST_VERSION = 1
PACKAGES = (
    "tunecask",
    "torch",
    "torchtune",
    "torchao",
    "bitsandbytes",
    "transformers",
    "datasets",
    "lm-eval",
    "peft",
    "safetensors",
)


def gather(plan: Plan, recipe: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The manifest of a run that is about to start; holds no secret.

    Args:
        recipe: the rendered YAML.
        environ: for the name of the image (TRAIN_IMAGE), which a container build sets.
    """
    held_out = plan.dataset.evaluation
    return {
        "version": MANIFEST_VERSION,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": plan.settings.as_dict(),
        "seed": plan.settings.seed,
        "world": asdict(plan.world),
        "model": _facts(plan.model),
        "teacher": plan.teacher and _facts(plan.teacher),
        "data": {
            "reference": plan.dataset.reference,
            "revision": _revision(plan.dataset.train.path.parent / DESCRIPTION),
            "train": {"rows": plan.dataset.train.rows, "sha256": plan.dataset.train.sha256},
            "evaluation": held_out and {"rows": held_out.rows, "sha256": held_out.sha256},
        },
        "recipe": {
            "name": plan.recipe,
            "template": plan.template.name,
            "sha256": hashlib.sha256(recipe.encode()).hexdigest(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "image": environ.get("TRAIN_IMAGE"),
        "git_revision": git_revision(Path(__file__).parent),
        "executable": sys.executable,
        "directory": str(Path.cwd()),
    }


def _facts(model: Model) -> dict[str, Any]:
    return {
        "reference": model.reference,
        "pinned": pinned(model),
        "folder": str(model.folder),
        "architecture": model.architecture,
        "parameters": model.parameters,
        # of a dry run: what is not on this machine yet
        **(_content(model) if model.folder.is_dir() else {}),
    }


def _content(model: Model) -> dict[str, Any]:
    return {
        "config_sha256": sha256_of(model.folder / "config.json"),
        "sample_sha256": mark(model),
        "shards": {name: (model.folder / name).stat().st_size for name in model.shards},
    }


def _revision(description: Path) -> str | None:
    """The commit of a data set of the hub, from what was written when it was prepared."""
    if not description.is_file():
        return None
    found: str | None = json.loads(description.read_text("utf-8"))["source"]["revision"]
    return found


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions
