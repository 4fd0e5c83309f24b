"""entrypoint.exporting: the room that an export takes on the disk."""

from pathlib import Path

import pytest

from entrypoint.exporting import needed_bytes
from entrypoint.models.checkpoint import Checkpoint
from entrypoint.settings import ExportKind


@pytest.mark.parametrize(
    ("kind", "adapter", "copies"),
    [("hf", False, 1), ("hf", True, 1), ("gguf", False, 1), ("gguf", True, 2), ("peft", True, 0)],
)
def test_a_gguf_file_of_an_adapter_needs_room_for_the_merged_model_too(
    kind: ExportKind, adapter: bool, copies: int, tmp_path: Path
):
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    checkpoint = Checkpoint(
        folder=tmp_path, label="m", run=None, adapter=tmp_path / "adapter" if adapter else None
    )
    assert needed_bytes(checkpoint, kind) == copies * 1000
