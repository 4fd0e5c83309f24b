"""Secrets that must appear nowhere."""

from pathlib import Path

from tests.aml.control_plane import STORES, ControlPlane

CANARIES = {
    name: f"canary-{name.lower().replace('_', '-')}-0123456789"
    for name in (
        "HF_TOKEN",
        "WANDB_API_KEY",
        "OPENAI_API_KEY",
        "DB_PASSWORD",
        "AZURE_CLIENT_SECRET",
    )
}
IN_VAULT = "canary-in-the-vault-0123456789"


def nothing_secret(plane: ControlPlane, desk: Path, least: int = 20) -> None:
    """No value of a secret variable is in a request, a blob, a log or a file here."""
    secrets = [value.encode() for value in (*CANARIES.values(), IN_VAULT)]
    found = {f"request {path}": repr((path, headers, body)).encode()
             for _, path, headers, body in plane.requests}  # fmt: skip
    found |= dict(plane.storage.everything(STORES))
    folders = (desk, plane.folder, plane.storage.log.parent)
    for path in {path for folder in folders for path in folder.rglob("*") if path.is_file()}:
        found[str(path)] = path.read_bytes()
    assert len(found) > least
    assert [name for name, text in found.items() if any(one in text for one in secrets)] == []
