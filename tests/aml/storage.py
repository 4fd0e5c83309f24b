"""Azurite as the blob service of the stand-in, with certificates and names for loopback."""

import base64
import contextlib
import datetime
import ipaddress
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from azure.storage.blob import ContainerClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from entrypoint.zero_first import free_port

ACCOUNT = "amlstore"
KEY = base64.b64encode(b"a key of the stand-in's storage").decode()
AZURITE = "TUNECASK_AZURITE"
"""The path of azurite-blob."""
SUFFIX = "blob.core.localhost"
IN_DATASTORE = re.compile(r"datastores/([^/]+)/(?:paths/)?(.*)")
IN_ADDRESS = re.compile(r"https://[^/]+/([^/]+)/(.*)")
Place = tuple[str, str]
"""A container, and the beginning of names in it."""


def write_certificates(folder: Path) -> None:
    """ca.pem, leaf.pem and leaf.key, for the names of the stand-in."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name: str, key, issuer: str, issuer_key, *, is_authority: bool):  # type: ignore[no-untyped-def]
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        names = [x509.DNSName("localhost"), x509.DNSName(f"*.{SUFFIX}")]
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )

    authority, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = serialization.Encoding.PEM
    for file, made in {
        "ca.pem": certificate("stand-in", authority, "stand-in", authority, is_authority=True),
        "leaf.pem": certificate("localhost", leaf, "stand-in", authority, is_authority=False),
    }.items():
        (folder / file).write_bytes(made.public_bytes(pem))
    private = leaf.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "leaf.key").write_bytes(private)


@contextlib.contextmanager
def names_of_loopback() -> Iterator[None]:
    """glibc does not resolve *.localhost."""
    original = socket.getaddrinfo

    def resolve(host, *rest, **named):  # type: ignore[no-untyped-def]
        name = host.decode() if isinstance(host, bytes) else host
        inside = isinstance(name, str) and name.endswith(".localhost")
        return original("127.0.0.1" if inside else host, *rest, **named)

    socket.getaddrinfo = resolve
    try:
        yield
    finally:
        socket.getaddrinfo = original


@dataclass
class Storage:
    """A running Azurite."""

    port: int
    ca: Path
    log: Path

    @property
    def suffix(self) -> str:
        return f"core.localhost:{self.port}"

    def container(self, name: str) -> ContainerClient:
        return ContainerClient(
            f"https://{ACCOUNT}.{SUFFIX}:{self.port}",
            name,
            credential=KEY,
            connection_verify=str(self.ca),
        )

    def upload(self, folder: Path, place: Place) -> None:
        """Put the files of a folder where a mount would have them."""
        container, prefix = self.container(place[0]), place[1].strip("/")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                    name = f"{prefix}/{path.relative_to(folder).as_posix()}"
                    container.upload_blob(name, file, overwrite=True)

    def download(self, place: Place, folder: Path) -> Path:
        """Bring what lies at a place to a folder. Returns it, or its one file."""
        container, prefix = self.container(place[0]), place[1].strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for blob in container.list_blobs(prefix):
            inside = blob.name.removeprefix(prefix).strip("/")
            target = folder / (inside or Path(blob.name).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(container.download_blob(blob.name).readall())
            if not inside:
                return target
        return folder

    def everything(self, containers: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        """Every blob, with its content."""
        for name in containers:
            container = self.container(name)
            for blob in container.list_blobs():
                yield f"{name}/{blob.name}", container.download_blob(blob.name).readall()


def place_of(uri: str) -> Place:
    """Where something lies, however Azure ML says it."""
    found = IN_DATASTORE.search(uri) or IN_ADDRESS.match(uri)
    assert found, uri
    return found[1], found[2]


@contextlib.contextmanager
def azurite(folder: Path, containers: tuple[str, ...]) -> Iterator[Storage]:
    """A blob service on loopback, with these containers."""
    write_certificates(folder)
    storage = Storage(port=free_port(), ca=folder / "ca.pem", log=folder / "azurite.log")
    with subprocess.Popen(
        (
            os.environ[AZURITE], "--blobHost", "127.0.0.1", "--blobPort", str(storage.port),
            "--location", str(folder / "blobs"), "--cert", str(folder / "leaf.pem"),
            "--key", str(folder / "leaf.key"), "--debug", str(storage.log),
            "--skipApiVersionCheck", "--disableTelemetry", "--silent",
        ),
        env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
        stdout=subprocess.DEVNULL,
    ) as process, names_of_loopback():  # fmt: skip
        try:
            until = time.monotonic() + 60
            while True:
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", storage.port)),
                ):
                    break
                assert process.poll() is None, "Azurite has ended"
                assert time.monotonic() < until, "Azurite does not answer"
                time.sleep(0.2)
            for name in containers:
                storage.container(name).create_container()
            yield storage
        finally:
            process.terminate()
