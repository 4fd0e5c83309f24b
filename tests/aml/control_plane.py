"""A stand-in for Azure ML's control plane, the managed identity and a key vault, over TLS."""

import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from tests.aml.machines import LOGS, Execution
from tests.aml.storage import ACCOUNT, KEY, SUFFIX, Storage, place_of

TOKEN = "a-token-of-the-stand-in"
BLOBS = "workspaceblobstore"
STORES = (BLOBS, LOGS, "snapshots")
SCOPE = "/subscriptions/s/resourceGroups/g"
WS = f"{SCOPE}/providers/Microsoft.MachineLearningServices/workspaces/w"
ASSET = re.compile(r"/(environments|data|codes|models)/([^/]+)/versions/([^/]+)$")
ASSETS = re.compile(r"/(environments|data|codes|models)/([^/]+)/versions$")
SHORT = re.compile(r"azureml:([^/:]+):([^/:]+)$")
SIZES = [
    {"name": "Standard_D4s_v3", "family": "D", "vCPUs": 4, "gpus": 0, "memoryGB": 16},
    {"name": "Standard_NC24ads_A100_v4", "family": "NC", "vCPUs": 24, "gpus": 1, "memoryGB": 220},
]


class ControlPlane:
    """What it knows, what it was asked, and which jobs run."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage, self.folder = storage, folder
        self.port = 0
        self.resources: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, Execution] = {}
        self.requests: list[tuple[str, str, dict[str, str], str]] = []
        self.vault: dict[str, str] = {}
        self.lists_sizes = True

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What makes the unmodified SDK come here."""
        return {
            "ARM_CLOUD_METADATA_URL": f"{self.address}/metadata/endpoints",
            "IDENTITY_ENDPOINT": f"{self.address}/msi/token",
            "IDENTITY_HEADER": "x",
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "REQUESTS_CA_BUNDLE": str(self.storage.ca),
            "AZUREML_RUN_POLLING_INTERVAL_MIN": "1",
            "AZUREML_RUN_POLLING_INTERVAL_MAX": "2",
        }

    def calls(self, method: str, pattern: str) -> int:
        """How often something was asked for."""
        return sum(
            asked == method and re.search(pattern, path) is not None
            for asked, path, _, _ in self.requests
        )

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, Any]:
        """Status and JSON of one request."""
        if path == "/metadata/endpoints":
            return 200, [
                {
                    "name": "StandIn",
                    "portal": "https://portal.localhost",
                    "resourceManager": f"{self.address}/",
                    "authentication": {
                        "loginEndpoint": "https://login.localhost",
                        "audiences": [self.address],
                    },
                    "suffixes": {"storage": self.storage.suffix},
                }
            ]
        if path == "/msi/token":
            expires = str(int(time.time()) + 3600)
            return 200, {"access_token": TOKEN, "expires_on": expires, "token_type": "Bearer"}
        if path.startswith("/secrets/"):
            name = path.split("/")[2]
            if name not in self.vault:
                return 404, {"error": {"code": "SecretNotFound", "message": name}}
            return 200, {"value": self.vault[name], "id": f"{self.address}{path}/1"}
        if found := re.search(r"/connections/([^/]+)(/listsecrets)?$", path):
            return self.connection(path, found[1], with_key=found[2] is not None)
        if path.endswith("/vmSizes"):
            return (200, {"value": SIZES}) if self.lists_sizes else (403, error("no right"))
        if path == WS:
            return 200, self.resource(
                WS,
                {
                    "location": "here",
                    "properties": {
                        "workspaceId": "w",
                        "discoveryUrl": f"{self.address}/discovery",
                        "mlFlowTrackingUri": f"azureml://{self.address[8:]}/mlflow/v1.0{WS}",
                        "storageAccount": f"{SCOPE}/{ACCOUNT}",
                    },
                },
            ) | {"location": "here"}
        if path == "/discovery":
            return 200, {"api": self.address}
        if path.endswith("/listSecrets"):
            return 200, {"secretsType": "AccountKey", "key": KEY}
        if "/datastores/" in path:
            return 200, self.resource(path, self.datastore(path.rpartition("/")[2]))
        if "/history/" in path:
            return self.details(path.split("/runs/")[1].split("/")[0])
        if path.endswith("/startPendingUpload"):
            return 200, self.pending(path)
        if "/jobs/" in path:
            return self.job(method, path, body)
        if "/onlineEndpoints/" in path:
            return self.endpoint(method, path, body)
        return self.asset(method, path, query, body)

    def resource(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(timezone.utc).isoformat()
        return {
            "id": path,
            "name": path.rpartition("/")[2],
            "type": "resource",
            "systemData": {"createdAt": now, "lastModifiedAt": now},
            **body,
        }

    def datastore(self, name: str) -> dict[str, Any]:
        return {
            "properties": {
                "datastoreType": "AzureBlob",
                "accountName": ACCOUNT,
                "containerName": name,
                "endpoint": self.storage.suffix,
                "protocol": "https",
                "credentials": {"credentialsType": "AccountKey"},
                "isDefault": name == BLOBS,
            }
        }

    def pending(self, path: str) -> dict[str, Any]:
        found = re.search(r"/(\w+)/([^/]+)/versions/([^/]+)/startPendingUpload", path)
        assert found
        sas = generate_container_sas(
            ACCOUNT,
            "snapshots",
            account_key=KEY,
            permission=ContainerSasPermissions(
                read=True, write=True, list=True, create=True, add=True
            ),
            expiry=datetime.now(timezone.utc) + timedelta(hours=1),
        )
        address = f"https://{ACCOUNT}.{SUFFIX}:{self.storage.port}/snapshots"
        return {
            "pendingUploadId": found[2],
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": address,
                "storageAccountArmId": ACCOUNT,
                "credential": {"credentialType": "SAS", "sasUri": f"{address}?{sas}"},
            },
        }

    def asset(
        self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, Any]:
        """Environments, data, code, models, computes, and their versions."""
        if method == "PUT":
            if "/models/" in path:
                self.rewrite(body["properties"])
            self.resources[path] = self.resource(path, body)
            return 200, self.resources[path]
        if path in self.resources:
            return 200, self.resources[path]
        inside = [
            found
            for at, found in self.resources.items()
            if at.startswith(f"{path.removesuffix('/versions')}/versions/")
        ]
        if ASSETS.search(path):
            if wanted := query.get("hash"):
                inside = [
                    found
                    for found in inside
                    if found["properties"].get("properties", {}).get("hash_sha256") == wanted[0]
                ]
            return 200, {"value": inside[::-1]}
        if inside and "/versions/" not in path:
            # of a container
            numbers = [int(found["name"]) for found in inside if found["name"].isdigit()]
            properties = {
                "latestVersion": inside[-1]["name"],
                "nextVersion": str(max(numbers, default=0) + 1),
                "properties": {},
            }
            return 200, self.resource(path, {"properties": properties})
        return 404, error(f"{path} is not there")

    def connection(self, path: str, name: str, *, with_key: bool) -> tuple[int, Any]:
        """Of the kind that has a key; they are what the vault has."""
        if name not in self.vault:
            return 404, error(f"{name} is not there")
        credentials = {"credentials": {"key": self.vault[name]}} if with_key else {}
        said = {"authType": "ApiKey", "category": "ApiKey", "target": "https://x.localhost"}
        return 200, self.resource(path, {"properties": said | credentials})

    def endpoint(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Endpoints and deployments: they are ready at once."""
        if method == "DELETE":
            for at in [at for at in self.resources if f"{at}/".startswith(f"{path}/")]:
                del self.resources[at]
            return 200, {}
        if method == "PUT":
            name = path.split("/onlineEndpoints/")[1].split("/")[0]
            ready = {
                "provisioningState": "Succeeded",
                "scoringUri": f"https://{name}.localhost/score",
                "scaleSettings": {"scaleType": "Default"},
            }
            self.resources[path] = self.resource(
                path, body | {"properties": body["properties"] | ready}
            )
        if path.endswith("/deployments"):
            return 200, {"value": [self.resources[at] for at in self.resources if path in at]}
        found = self.resources.get(path)
        return (200, found) if found else (404, error(f"{path} is not there"))

    def rewrite(self, properties: dict[str, Any]) -> None:
        """A model's place in a job's output becomes one in the datastore."""
        properties.setdefault("flavors", {})
        found = re.search(r"jobs/([^/]+)/outputs/(\w+)/paths/(.*)", properties["modelUri"])
        if found:
            output = self.jobs[found[1]].outputs[found[2]]["uri"]
            store, prefix = place_of(output)
            properties["modelUri"] = (
                "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/"
                f"{store}/paths/{prefix.strip('/')}/{found[3]}"
            )

    def located(self, reference: str) -> str:
        """The URI of an asset, or what is one already."""
        path = reference.removeprefix("azureml:")
        short = SHORT.match(reference)
        if short:
            path = next(
                at for at in self.resources if at.endswith(f"/{short[1]}/versions/{short[2]}")
            )
        found = self.resources.get(path)
        if found is None:
            return reference
        said = found["properties"]
        return str(said.get("dataUri") or said.get("codeUri") or said.get("modelUri"))

    def job(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        name = path.split("/jobs/")[1].split("/")[0]
        at = f"{WS}/jobs/{name}"
        if path.endswith("/cancel"):
            import signal

            self.jobs[name].end(signal.SIGTERM, "Canceled")
            return 200, {}
        if method == "PUT" and name not in self.jobs:
            self.resources[at] = self.resource(at, body)
            self.jobs[name] = Execution(
                name, body["properties"], self.folder / name, self.storage, self.located,
                {key: value for key, value in self.environment().items() if "POLLING" not in key},
            )  # fmt: skip
        if name not in self.jobs:
            return 404, error(f"{name} is not there")
        stored = self.resources[at]
        default = f"azureml://datastores/{LOGS}/ExperimentRun/dcid.{name}"
        properties = stored["properties"] | {
            "status": self.jobs[name].status,
            "services": {
                "Studio": {"jobServiceType": "Studio", "endpoint": f"https://ml.localhost/{name}"}
            },
            "outputs": {
                **stored["properties"]["outputs"],
                "default": {"jobOutputType": "uri_folder", "uri": default},
            },
        }
        return 200, stored | {"properties": properties}

    def details(self, name: str) -> tuple[int, Any]:
        execution = self.jobs[name]
        if execution.status == "Running":
            execution.upload_logs()
        said = {"runId": name, "status": execution.status, "logFiles": {}}
        if execution.status == "Failed":
            said["error"] = {"error": {"code": "UserError", "message": "the command failed"}}
        return 200, said


def error(message: str) -> dict[str, Any]:
    return {"error": {"code": "Refused", "message": message}}


@contextmanager
def control_plane(storage: Storage, folder: Path) -> Iterator[ControlPlane]:
    """A running stand-in; its jobs are ended with it."""
    plane = ControlPlane(storage, folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {
                key: value for key, value in self.headers.items() if key.lower() != "authorization"
            }
            plane.requests.append((self.command, self.path, headers, sent.decode()))
            more: dict[str, str] = {}
            free = parts.path in ("/metadata/endpoints", "/msi/token", "/discovery")
            if not free and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                # the key vault's client asks without a token first, to learn whom to ask for one
                status, said = 401, error("no token")
                more["WWW-Authenticate"] = (
                    f'Bearer authorization="https://login.localhost/t", '
                    f'resource="https://0.0.1:{plane.port}"'
                )
            else:
                try:
                    status, said = plane.answer(
                        self.command, parts.path, parse_qs(parts.query),
                        json.loads(sent) if sent else {},
                    )  # fmt: skip
                except Exception as problem:  # noqa: BLE001 - told to the client
                    status, said = 500, error(repr(problem))
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            for key, value in more.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(text)

    for method in ("GET", "PUT", "POST", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(storage.ca.with_name("leaf.pem"), storage.ca.with_name("leaf.key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    plane.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield plane
    finally:
        for execution in plane.jobs.values():
            execution.preempt()
        server.shutdown()
        server.server_close()
