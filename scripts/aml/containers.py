"""Nodes as containers of one Docker network."""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from entrypoint.errors import SettingsError

GPU_DRIVER = Path("/proc/driver/nvidia/version")
LOGS = "/mnt/azureml/user_logs"
CODE = "/mnt/azureml/code"


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Docker, with a network for the nodes of one job."""

    image: str
    job: str
    shm_size: str
    arguments: tuple[str, ...]
    """More of `docker run`, as the job has them."""

    def host(self, node: int) -> str:
        """Name of a node's container, by which the other nodes find it."""
        return f"tunecask-{self.job}-{node}".lower()

    @property
    def network(self) -> str:
        return f"tunecask-{self.job}".lower()

    def open(self) -> None:
        """Make the network.

        Raises:
            SettingsError: there is no Docker, or it does not have the image.
        """
        _docker("image", "inspect", self.image)
        _docker("network", "create", self.network)

    def close(self) -> None:
        _docker("network", "rm", self.network)

    def run(
        self,
        node: int,
        places: Sequence[tuple[str, Path, Path]],
        code: Path,
        logs: Path,
        variables: Iterable[str],
        command: Sequence[str],
    ) -> tuple[str, ...]:
        """The command that runs a node to its end.

        Args:
            places: ro or rw, source and target of each mount.
            code: the folder that becomes the working directory.
            variables: names; their values are in the environment that the command is started with.
        """
        inside = [*places, ("rw", code, Path(CODE)), ("rw", logs, Path(LOGS))]
        mounts = [
            word
            for how, source, target in inside
            for word in ("--volume", f"{source.absolute()}:{target}:{how}")
        ]
        passed = [word for name in variables for word in ("--env", name)]
        gpus = ("--gpus", "all") if GPU_DRIVER.exists() else ()
        return (
            "docker", "run", "--rm", "--init", "--env", "TINI_KILL_PROCESS_GROUP=1",
            "--name", self.host(node), "--network", self.network, "--shm-size", self.shm_size,
            *gpus, *mounts, *passed, *self.arguments, "--workdir", CODE, self.image, *command,
        )  # fmt: skip

    def kill(self, nodes: int) -> None:
        _docker("kill", *(self.host(node) for node in range(nodes)), check=False)

    def remove(self, nodes: int) -> None:
        """Forget containers that have ended, as Docker does a moment later by itself."""
        _docker("rm", "--force", *(self.host(node) for node in range(nodes)), check=False)


def _docker(*arguments: str, check: bool = True) -> None:
    hint = "install Docker and build the image (`make image`), or leave --image out"
    try:
        ended = subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SettingsError("there is no Docker here", where="--image", hint=hint) from error
    if check and ended.returncode:
        raise SettingsError(
            f"docker {' '.join(arguments)}: {ended.stderr.strip()}", where="--image", hint=hint
        )
