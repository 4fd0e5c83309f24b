"""Which variables are secret, and how their values are kept out of what is written."""

import re
from collections.abc import Mapping

SECRET_NAME = re.compile(
    r"(TOKEN|API_?KEY|SECRET|PASSWORD|CREDENTIAL|CONNECTION_STRING)", re.IGNORECASE
)
SHORTEST_SECRET = 8
"""Characters below which a value is a setting (TOKENIZERS_PARALLELISM=false), not a secret."""


class Redactor:
    """Replaces the values of secret variables in text.

    Args:
        environ: the environment whose secrets are to be hidden.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        secrets = {
            value
            for name, value in environ.items()
            if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET
        }
        # the longest first: one secret may begin with another
        ordered = sorted(secrets, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text
