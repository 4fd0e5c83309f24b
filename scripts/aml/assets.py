"""What a job refers to by name: environment, data, compute. Unchanged, none is made anew."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entrypoint.errors import DataError, SettingsError
from entrypoint.files import write_text
from scripts.aml import check
from scripts.aml.settings import AmlSettings
from scripts.aml.snapshot import ROOT, files_of, stage

CONTEXT = Path(".aml/context")
"""Where the image's build context is put together."""
SERVING = Path(".aml/Dockerfile.serving")


def version_of(files: Mapping[str, Path]) -> str:
    """A version that is the content's: names and bytes."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
        digest.update(f"\0{name}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()[:16]


def context_files(dockerfile: str) -> dict[str, Path]:
    """What `.dockerignore` lets into a build, and the Dockerfile."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    names = [line[1:].removesuffix("/**") for line in lines if line.startswith("!")]
    return files_of({name: ROOT / name for name in (*names, dockerfile)})


def environment(ml: Any, settings: AmlSettings, *, serves: bool = False) -> tuple[str, bool]:
    """Create the environment of an image or of a build, unless it is there.

    Args:
        serves: it is for a deployment: the build has the inference parts.

    Returns:
        NAME:VERSION, and whether it is new.

    Raises:
        SettingsError: there is nothing to build from.
    """
    from azure.ai.ml.entities import BuildContext, Environment

    name = settings.environment.partition(":")[0].partition("@")[0]
    name = f"{name}-serving" if serves else name
    if settings.environment.startswith("azureml:"):
        raise SettingsError(
            "an environment of a registry cannot be made",
            where="--environment or AML_ENVIRONMENT",
            hint="give a name of your own, or leave aml-env out",
        )
    if settings.image:
        version = hashlib.sha256(settings.image.encode()).hexdigest()[:16]
        made = Environment(name=name, version=version, image=settings.image)
        files = {}
    else:
        problems = check.context_problems(ROOT, settings.dockerfile)
        check.require(list(problems), "--dockerfile or AML_DOCKERFILE", "environment")
        files = context_files(settings.dockerfile)
        if serves:
            write_text(SERVING, with_inference(files[settings.dockerfile].read_text("utf-8")))
            files[settings.dockerfile] = SERVING
        version = version_of(files)
        context = BuildContext(path=CONTEXT, dockerfile_path=settings.dockerfile)
        made = Environment(name=name, version=version, build=context)
    if found(ml.environments, name, version):
        return f"{name}:{version}", False
    if files:
        stage(files, CONTEXT)
    ml.environments.create_or_update(made)
    return f"{name}:{version}", True


def with_inference(dockerfile: str) -> str:
    """The Dockerfile with its inference parts: Azure ML passes no build arguments."""
    return dockerfile.replace("ARG INFERENCE=no\n", "ARG INFERENCE=yes\n", 1)


def data(ml: Any, path: Path, name: str) -> tuple[str, bool]:
    """Upload rows as a data asset, unless they are there.

    Returns:
        azureml:NAME:VERSION, and whether it is new.

    Raises:
        DataError: the folder has no files.
    """
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Data

    files = files_of({path.name: path})
    if not files:
        raise DataError("there are no files", where=path)
    version = version_of(files)
    is_new = not found(ml.data, name, version)
    if is_new:
        kind = AssetTypes.URI_FOLDER if path.is_dir() else AssetTypes.URI_FILE
        ml.data.create_or_update(
            Data(name=name, version=version, path=str(path.absolute()), type=kind)
        )
    return f"azureml:{name}:{version}", is_new


def compute(ml: Any, settings: AmlSettings) -> bool:
    """Create the cluster, unless it is there; with an identity of its own, and no idle machines.

    Returns:
        Whether it is new.

    Raises:
        SettingsError: no name or no size.
    """
    from azure.ai.ml.entities import AmlCompute, IdentityConfiguration
    from azure.core.exceptions import ResourceNotFoundError

    if not settings.compute or settings.compute == "serverless":
        raise SettingsError("the cluster has no name", where="--compute or AML_COMPUTE")
    try:
        ml.compute.get(settings.compute)
    except ResourceNotFoundError:
        if not settings.size:
            raise SettingsError(
                f"the cluster {settings.compute} is not there, and its size is not known",
                where="--size or AML_SIZE",
            ) from None
        cluster = AmlCompute(
            name=settings.compute,
            size=settings.size,
            min_instances=0,
            max_instances=settings.nodes,
            tier=settings.tier.replace("-", "_"),
            identity=IdentityConfiguration(type="system_assigned"),
        )
        ml.compute.begin_create_or_update(cluster).result()
        return True
    return False


def found(operations: Any, name: str, version: str) -> Any:
    """An asset, or None; where there is no version at all, Azure may say either."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return operations.get(name, version=version)
    except ResourceNotFoundError:
        return None
