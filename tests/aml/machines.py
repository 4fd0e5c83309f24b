"""The machines of the stand-in: inputs come from the blob service, outputs go back to it."""

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

from entrypoint.zero_first import free_port
from scripts.aml import machines
from tests.aml.storage import Storage, place_of

LOGS = "workspaceartifactstore"


class Execution:
    """One job on its nodes, as a rehearsal runs them."""

    def __init__(
        self, name: str, properties: dict[str, Any], folder: Path, storage: Storage,
        located: Any, environment: dict[str, str],
    ) -> None:  # fmt: skip
        self.name, self.properties, self.storage = name, properties, storage
        self.folder, self.located, self.environment = folder, located, environment
        self.status = "Starting"
        self.output = folder / "datastore"
        self.nodes: machines.Nodes | None = None
        self._ends_as: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def outputs(self) -> dict[str, Any]:
        return {
            name: output
            for name, output in (self.properties.get("outputs") or {}).items()
            if output.get("uri")
        }

    def _run(self) -> None:
        try:
            self.nodes = machines.Nodes(work=self._work(), folder=self.folder)
            self.nodes.start()
            self.status = "Running"
            ended = "Completed" if self.nodes.wait() else "Failed"
        except Exception as error:  # noqa: BLE001 - a test sees it as the job's failure
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "stand_in.txt").write_text(repr(error))
            ended = "Failed"
        for name, output in self.outputs.items():
            self.storage.upload(self.output / name, place_of(output["uri"]))
        self.upload_logs()
        self.status = self._ends_as or ended

    def _work(self) -> machines.Work:
        said = self.properties
        inputs = {
            name: self.storage.download(
                place_of(self.located(given["uri"])), self.folder / "inputs" / name
            )
            for name, given in (said.get("inputs") or {}).items()
        }
        code = None
        if said.get("codeId"):
            code = self.storage.download(
                place_of(self.located(said["codeId"])), self.folder / "code"
            )
        return machines.Work(
            command=said["command"],
            inputs=inputs,
            outputs={
                name: self.storage.download(place_of(output["uri"]), self.output / name)
                for name, output in self.outputs.items()
            },
            code=code,
            environment={
                "OMP_NUM_THREADS": "1",
                **self.environment,
                **(said.get("environmentVariables") or {}),
            },
            nodes=said["resources"]["instanceCount"],
            processes=said["distribution"]["processCountPerInstance"],
            master_port=free_port(),
        )

    def upload_logs(self) -> None:
        logs = self.folder / "logs to send"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir()
        for path in (*self.folder.glob("user_logs/*.txt"), *self.folder.glob("stand_in.txt")):
            shutil.copy(path, logs / path.name)
        self.storage.upload(logs, (LOGS, f"ExperimentRun/dcid.{self.name}/user_logs"))

    def end(self, number: signal.Signals, status: str) -> None:
        """A signal to all nodes, and what the job has become by it."""
        self._ends_as = status
        until = time.monotonic() + 60
        while self.status == "Starting" and time.monotonic() < until:
            time.sleep(0.1)
        if self.nodes:
            if number == signal.SIGKILL:
                self.nodes.kill()
            else:
                self.nodes.signal(number)
        self._thread.join(120)

    def preempt(self) -> None:
        """The machines are taken away."""
        self.end(signal.SIGKILL, "Failed")
