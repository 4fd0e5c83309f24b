"""What the stand-in of a model hub holds: repositories, what goes wrong with them, and requests."""

import functools
import hashlib
from dataclasses import dataclass, field


@dataclass
class Served:
    """One answered request."""

    method: str
    path: str
    file: str | None
    start: int
    open_ended: bool
    """Whether it asked for all from `start` on: a download, not a look at a header."""
    token: str | None
    storage: bool
    sent: int = 0
    status: int = 0


@dataclass
class Repo:
    """A repository, and what goes wrong with it."""

    name: str
    files: dict[str, bytes]
    token: str | None = None
    """The token that a private or gated repository wants."""
    gated: bool = False
    private: bool = False
    forbidden: bool = False
    """The token is known and lacks the right."""
    renamed: str | None = None
    status: int | None = None
    """Every request about it is answered so."""
    file_status: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    """Bytes of a file after which the connection is cut, once; later ones are cut at once."""
    wrong: set[str] = field(default_factory=set)
    """Files whose bytes are altered."""
    rate: int | None = None
    """Bytes a second of large files."""

    @property
    def commit(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + sha256(content).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, object]:
        siblings = []
        for name, content in self.files.items():
            sibling: dict[str, object] = {
                "rfilename": name, "size": len(content), "blobId": git_id(content),
            }  # fmt: skip
            if is_large(name):
                sibling["lfs"] = {
                    "sha256": sha256(content),
                    "size": len(content),
                    "pointerSize": 130,
                }
            siblings.append(sibling)
        return {
            "_id": "1", "id": self.name, "modelId": self.name, "sha": self.commit,
            "private": self.private, "gated": "manual" if self.gated else False, "tags": [],
            "siblings": siblings,
        }  # fmt: skip


@functools.lru_cache(maxsize=64)
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pth", ".gguf"))


@functools.lru_cache(maxsize=64)
def git_id(content: bytes) -> str:
    """git's id of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
