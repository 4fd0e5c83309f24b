"""Which variables are secret, what gives them, and how their values stay out of what is written."""

import re
from collections.abc import Mapping
from pathlib import Path

from entrypoint.errors import SettingsError

SECRET_NAME = re.compile(
    r"(TOKEN|API_?KEY|SECRET|PASSWORD|CREDENTIAL|CONNECTION_STRING)", re.IGNORECASE
)
SHORTEST_SECRET = 8
"""Characters below which a value is a setting (TOKENIZERS_PARALLELISM=false), not a secret."""
FOLDER = Path("/run/secrets")
"""Where containers get secrets as files."""
VARIABLE = "TRAIN_SECRETS"
"""Names another folder; that is no secret."""


def read_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Secret variables that `environ` lacks, from files that are called like them.

    `HF_TOKEN` is read from a file `HF_TOKEN` or `hf_token`. Files with other names than those of
    secrets, and empty ones, are left alone.

    Raises:
        SettingsError: a file cannot be read.
    """
    folder = Path(environ.get(VARIABLE) or FOLDER)
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name.upper()
        if not SECRET_NAME.search(name) or environ.get(name) or path.is_dir():
            continue
        try:
            value = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SettingsError(
                f"the secret {name} cannot be read: {reason}",
                where=path,
                hint="make the file readable for the user that runs `train`, or take it away",
            ) from error
        if value:
            found[name] = value
    return found


IN_ADDRESS = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")
"""A password within an address, as in MLFLOW_TRACKING_URI=https://user:password@host."""


def is_secret(name: str, value: str) -> bool:
    """Whether a variable's value is to be hidden."""
    return (
        SECRET_NAME.search(name) is not None and len(value) >= SHORTEST_SECRET and name != VARIABLE
    )


class Redactor:
    """Replaces in text the values of secret variables, and the passwords in addresses.

    Args:
        environ: the environment whose secrets are to be hidden.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        secrets = {value for name, value in environ.items() if is_secret(name, value)}
        secrets |= {word for value in environ.values() for word in IN_ADDRESS.findall(value)}
        # the longest first: one secret may begin with another
        ordered = sorted(secrets, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text
