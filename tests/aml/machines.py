"""The machines of the stand-in: a job's command on each node, with Azure ML's variables."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.aml.storage import Storage, free_port, place_of

LOGS = "workspaceartifactstore"
PLACEHOLDER = re.compile(r"\$\{\{(inputs|outputs)\.(\w+)\}\}")


class Execution:
    """One job on its nodes, as processes of this machine."""

    def __init__(
        self, name: str, properties: dict[str, Any], folder: Path, storage: Storage,
        located: Any, environment: dict[str, str],
    ) -> None:  # fmt: skip
        self.name, self.properties, self.storage = name, properties, storage
        self.folder, self.located, self.environment = folder, located, environment
        self.status = "Starting"
        self.output = folder / "mounted outputs"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._ends_as: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def outputs(self) -> dict[str, Any]:
        return self.properties.get("outputs") or {}

    def _run(self) -> None:
        try:
            nodes = self.properties["resources"]["instanceCount"]
            for name, output in self.outputs.items():
                if output.get("uri"):
                    place = place_of(output["uri"])
                    self.storage.download(place, self.output / name)
            port = free_port()
            for node in range(nodes):
                self.processes.append(self._start(node, nodes, port))
            self.status = "Running"
            codes = [process.wait() for process in self.processes]
            ended = "Failed" if any(codes) else "Completed"
        except Exception as error:  # noqa: BLE001 - a test sees it as the job's failure
            (self.folder / "std_log_stand_in.txt").write_text(repr(error))
            ended = "Failed"
        self._collect()
        self.status = self._ends_as or ended

    def _start(self, node: int, nodes: int, port: int) -> subprocess.Popen[bytes]:
        home = self.folder / f"node {node}"
        home.mkdir(parents=True)
        paths = {}
        for name, given in (self.properties.get("inputs") or {}).items():
            at = home / f"wd;mount'{name}"
            paths["inputs", name] = self.storage.download(place_of(self.located(given["uri"])), at)
            for path in (at, *at.rglob("*")):
                path.chmod(0o555 if path.is_dir() else 0o444)
        for name in self.outputs:
            paths["outputs", name] = self.output / name
            paths["outputs", name].mkdir(parents=True, exist_ok=True)
        code = home / "code"
        code.mkdir()
        if self.properties.get("codeId"):
            self.storage.download(place_of(self.located(self.properties["codeId"])), code)
        command = PLACEHOLDER.sub(
            lambda found: str(paths[found[1], found[2]]), self.properties["command"]
        )
        per_node = self.properties["distribution"]["processCountPerInstance"]
        assert per_node == 1, "one process for each GPU needs GPUs"
        log = self.folder / f"std_log_process_{node:02}.txt"
        with log.open("wb") as file:
            return subprocess.Popen(
                ("bash", "-c", command),
                cwd=code,
                env={
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "HOME": str(home),
                    "TRAIN_CACHE": str(home / "cache"),
                    "OMP_NUM_THREADS": "1",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "WORLD_SIZE": str(nodes),
                    "NODE_RANK": str(node),
                    "RANK": str(node),
                    "LOCAL_RANK": "0",
                    **self.environment,
                    **(self.properties.get("environmentVariables") or {}),
                },
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def upload_logs(self) -> None:
        logs = self.folder / "logs to send"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir()
        for path in self.folder.glob("std_log_*.txt"):
            shutil.copy(path, logs / path.name)
        self.storage.upload(logs, (LOGS, f"ExperimentRun/dcid.{self.name}/user_logs"))

    def _collect(self) -> None:
        for name, output in self.outputs.items():
            if output.get("uri") and (self.output / name).is_dir():
                self.storage.upload(self.output / name, place_of(output["uri"]))
        self.upload_logs()

    def end(self, number: signal.Signals, status: str) -> None:
        """A signal to all nodes, and what the job has become by it."""
        self._ends_as = status
        until = time.monotonic() + 60
        while self.status == "Starting" and time.monotonic() < until:
            time.sleep(0.1)
        for process in self.processes:
            if process.poll() is not None:
                continue
            # what `train` starts has sessions of its own; a machine takes all with it
            inner = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, number)
            if number == signal.SIGKILL:
                for child in inner:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
        self._thread.join(120)

    def preempt(self) -> None:
        """The machines are taken away."""
        self.end(signal.SIGKILL, "Failed")
