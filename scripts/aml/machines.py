"""Machines of Azure ML on this one: a job's command on each node, its inputs mounted read-only."""

import os
import secrets as randomness
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.errors import SettingsError
from scripts.aml.arguments import PLACEHOLDER
from scripts.aml.containers import LOGS, Engine

MOUNT = """
while [ "$1" != -- ]; do
    mount --bind "$2" "$3"
    [ "$1" = rw ] || mount -o remount,bind,ro "$3"
    shift 3
done
shift
cd "$1"
shift
exec "$@"
"""
"""In namespaces of its own: `rw|ro SOURCE TARGET` for each mount, --, a folder, and a command."""
RANKS = """
trap : INT TERM
for local in $(seq 0 $((PER_NODE - 1))); do
    rank=$((NODE_RANK * PER_NODE + local))
    (
        trap - INT TERM
        export RANK=$rank LOCAL_RANK=$local
        unset PER_NODE LOGS
        exec bash -c "$1"
    ) >>"$LOGS/$(printf 'std_log_process_%02d.txt' $rank)" 2>&1 &
done
code=0
for process in $(jobs -p); do
    while :; do
        wait "$process" && ended=0 || ended=$?
        kill -0 "$process" 2>/dev/null || break
    done
    [ $ended = 0 ] || code=$ended
done
exit $code
"""
"""Starts a node's processes as Azure ML does, waits for all, and passes on that one has failed."""
CONTAINER = Path("/mnt/azureml")
LOOPBACK = "127.0.0.1"
PATIENCE = 120.0
"""Seconds that a job is given to end after a signal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What Azure ML knows of a job when it starts it."""

    command: str
    """With the placeholders of inputs and outputs."""
    inputs: Mapping[str, Path]
    """Where they lie on this machine: files or folders."""
    outputs: Mapping[str, Path]
    """The folders of this machine that stand for their places in a datastore."""
    code: Path | None
    """The code snapshot."""
    environment: Mapping[str, str]
    """All variables of the job that Azure ML does not set by itself."""
    nodes: int
    processes: int
    """Of each node."""
    master_port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A file or folder of this machine, where the job finds it."""

    kind: str
    """inputs or outputs, as placeholders call them."""
    name: str
    source: Path
    target: Path


def mounts(work: Work, home: Path) -> list[Mount]:
    """Where the inputs and outputs of a job appear on a node: at paths that nobody can foresee,
    and that need quoting."""
    inside = home / f"cr;{randomness.token_hex(4)}/data capability's wd"
    return [
        Mount(
            kind=kind,
            name=name,
            source=source,
            target=inside / f"{'INPUT_' if kind == 'inputs' else ''}{name}" / _file(source),
        )
        for kind, places in (("inputs", work.inputs), ("outputs", work.outputs))
        for name, source in places.items()
    ]


def _file(source: Path) -> str:
    """An input of one file is mounted as a file, whose name says what it is."""
    return source.name if source.is_file() else ""


def line(work: Work, mounted: list[Mount]) -> str:
    """The command that a shell gets, with paths in the placeholders' places."""
    paths = {(mount.kind, mount.name): str(mount.target) for mount in mounted}
    return PLACEHOLDER.sub(lambda found: paths[found[1], found[2]], work.command)


def variables(work: Work, node: int, master: str) -> dict[str, str]:
    """What Azure ML says to the processes of a node, but for RANK and LOCAL_RANK."""
    return {
        **work.environment,
        "MASTER_ADDR": master,
        "MASTER_PORT": str(work.master_port),
        "NODE_RANK": str(node),
        "WORLD_SIZE": str(work.nodes * work.processes),
        "AZUREML_NODE_COUNT": str(work.nodes),
    }


def require_mounts() -> None:
    """Make sure that inputs can be mounted read-only.

    Raises:
        SettingsError: the system allows no mounts of one's own.
    """
    hint = "give a container image: --image, with Docker; or allow user namespaces"
    try:
        tried = subprocess.run(
            (*_unshare(), "true"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SettingsError(
            "inputs cannot be mounted here", where="unshare of util-linux", hint=hint
        ) from error
    if tried.returncode:
        raise SettingsError(
            f"inputs cannot be mounted here: {tried.stderr.strip()}", where="unshare", hint=hint
        )


def _unshare() -> tuple[str, ...]:
    """Mounts and processes of a node's own: all that it started dies with it. Root may have them,
    others in a user namespace."""
    mine = () if os.geteuid() == 0 else ("--map-root-user",)
    return (
        "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
        "--mount-proc", *mine,
    )  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Nodes:
    """A job on its nodes, which are processes of this machine or containers.

    Args:
        work: what they do.
        folder: for the nodes' own files; made by this, and its logs.
        engine: what runs containers; None for processes.
    """

    work: Work
    folder: Path
    engine: Engine | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def logs(self) -> Path:
        """What each process of the job prints, as Azure ML files it."""
        return self.folder / "user_logs"

    def start(self) -> None:
        self.logs.mkdir(parents=True)
        for node in range(self.work.nodes):
            home = self.folder / f"node {node}"
            home.mkdir()
            self.processes.append(self._start(node, home))

    def _start(self, node: int, home: Path) -> subprocess.Popen[bytes]:
        code = home / "code"
        if self.work.code:
            shutil.copytree(self.work.code, code)
        else:
            code.mkdir()
        # containers have their own files: any path is free
        mounted = mounts(self.work, CONTAINER if self.engine else home.absolute())
        places = [("ro" if m.kind == "inputs" else "rw", m.source, m.target) for m in mounted]
        said = {
            **variables(self.work, node, self.engine.host(0) if self.engine else LOOPBACK),
            **{f"AZURE_ML_{m.kind[:-1].upper()}_{m.name}": str(m.target) for m in mounted},
            "PER_NODE": str(self.work.processes),
        }
        command = ("bash", "-c", RANKS, "ranks", line(self.work, mounted))
        if self.engine:
            said["LOGS"] = LOGS
            argv = self.engine.run(
                node, places, code.absolute(), self.logs.absolute(), said, command
            )
            environment = {**os.environ, **said}
        else:
            said["LOGS"] = str(self.logs.absolute())
            for _, source, target in places:
                _mountpoint(source, target)
            words = [str(word) for place in places for word in place]
            argv = (*_unshare(), "bash", "-euc", MOUNT, "mount", *words, "--", str(code), *command)
            environment = {
                "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
                "HOME": str(home),
                **said,
            }
        with (self.logs / f"node_{node}.txt").open("wb") as log:
            return subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # a Ctrl-C at the terminal reaches us alone and is passed on once
                start_new_session=True,
            )

    def ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for all nodes. Returns whether all have ended well.

        Raises:
            subprocess.TimeoutExpired: they have not ended within the time.
        """
        until = None if seconds is None else time.monotonic() + seconds
        codes = [
            process.wait(None if until is None else max(0.0, until - time.monotonic()))
            for process in self.processes
        ]
        if self.engine:
            self.engine.remove(self.work.nodes)
        return not any(codes)

    def signal(self, number: int) -> None:
        """Ask all nodes to end: what a cancelled job gets."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, number)

    def kill(self) -> None:
        """Take the machines away, with all that runs on them."""
        if self.engine:
            self.engine.kill(self.work.nodes)
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        self.wait(PATIENCE)


def _mountpoint(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    else:
        target.mkdir(parents=True, exist_ok=True)
