"""Log-probabilities of the reference, computed once and kept in the run folder.

They are found again by what they were computed from: the file is named after the base model, and in
it each pair is under the hash of its tokens and labels.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset

from entrypoint.errors import Interrupted
from entrypoint.tune.batches import Batch, Layout, silent
from entrypoint.tune.stopping import Stop
from entrypoint.tune.worlds import Ranks

ROWS_AT_ONCE = 512
"""Rows of each process that are computed between two savings."""

Known = dict[bytes, tuple[float, float]]
Rows = Sequence[Any]


class Referenced(Dataset[Any]):
    """Preference rows that know what the reference says of them.

    Args:
        said: by row number, the log-probabilities of the chosen and the rejected answer.
    """

    def __init__(self, rows: Rows, said: dict[int, tuple[float, float]]) -> None:
        self._rows, self._said = rows, said

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._rows[index], "reference": self._said[index]}


class ReferenceCache:
    """Computes log-probabilities of pairs, or remembers them.

    Args:
        path: the file, see `file_for`.
        reference: from a batch to [pairs, 2]; all processes call it as often.
        layout: makes batches of rows.
    """

    def __init__(
        self,
        path: Path,
        reference: Callable[[Batch], torch.Tensor],
        layout: Layout,
        ranks: Ranks,
        stop: Stop,
    ) -> None:
        self.path, self.reference, self.layout = path, reference, layout
        self.ranks, self.stop = ranks, stop
        # all processes go on from the same
        self.known: Known = ranks.of_the_leader(read(path) if ranks.leads else None)

    def referenced(self, rows: Rows, wanted: Iterable[int]) -> Referenced:
        """The rows, of which those that are wanted know their log-probabilities.

        Raises:
            Interrupted: a signal came; what is computed so far is kept.
        """
        keys = {number: key_of(rows[number]) for number in sorted(set(wanted))}
        missing = {key: number for number, key in keys.items() if key not in self.known}
        numbers = sorted(missing.values())
        each = self.ranks.size * ROWS_AT_ONCE
        for start in range(0, len(numbers), each):
            if self.ranks.leads:
                print(f"asking the reference: {start:,} of {len(numbers):,} pairs", flush=True)
            self._compute(rows, numbers[start : start + each], keys)
        return Referenced(rows, {number: self.known[key] for number, key in keys.items()})

    def _compute(self, rows: Rows, numbers: list[int], keys: dict[int, bytes]) -> None:
        own = numbers[self.ranks.rank :: self.ranks.size]
        given = [rows[number] for number in own]
        groups = self.layout.groups(given)
        passes, _ = self.ranks.largest(len(groups), 0)
        idle = silent(self.layout.batch([rows[numbers[0]]]))
        found: Known = {}
        stopped = 0
        for group, _ in zip_longest(groups, range(int(passes))):
            batch = idle if group is None else self.layout.batch([given[place] for place in group])
            said = self.reference(batch.to(self.ranks.device)).tolist()
            for place, (chosen, rejected) in zip(group or (), said, strict=True):
                found[keys[own[place]]] = (chosen, rejected)
            (stopped,) = (int(number) for number in self.ranks.largest(self.stop.number))
            if stopped:
                break
        for part in self.ranks.gathered(found):
            self.known |= part
        if self.ranks.leads:
            write(self.path, self.known)
        if stopped:
            raise Interrupted(
                stopped,
                f"interrupted with the reference's log-probabilities of {len(self.known):,} pairs",
                where=str(self.path),
            )


def file_for(folder: Path, recipe: DictConfig) -> Path:
    """Where the log-probabilities under a recipe's base model are kept.

    The name is a hash of the files of its weights (name, size, time) and of how they are computed.
    """
    base = Path(recipe.checkpointer.checkpoint_dir)
    files = [base / name for name in recipe.checkpointer.checkpoint_files]
    model = OmegaConf.to_container(recipe.model, resolve=True)
    assert isinstance(model, dict)
    made_from = {
        "files": [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files],
        "model": {name: value for name, value in model.items() if "lora" not in str(name)},
        "dtype": recipe.get("frozen_dtype") or recipe.dtype,
    }
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return folder / f"{digest[:16]}.safetensors"


def key_of(row: Any) -> bytes:
    """What a pair is found by: its tokens and labels."""
    digest = hashlib.sha256()
    for name in sorted(row):
        digest.update(json.dumps([name, row[name]]).encode())
    return digest.digest()


def read(path: Path) -> Known:
    """What a file knows; nothing, where there is none, or it is broken."""
    try:
        found = load_file(path)
        keys, said = found["keys"], found["log_probs"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return {}
    return {
        bytes(key): (chosen, rejected)
        for key, (chosen, rejected) in zip(keys.tolist(), said.tolist(), strict=True)
    }


def write(path: Path, known: Known) -> None:
    """Put the file there, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.partial")
    keys = torch.tensor([list(key) for key in known], dtype=torch.uint8)
    said = torch.tensor(list(known.values()), dtype=torch.float32)
    save_file({"keys": keys, "log_probs": said}, scratch)
    scratch.replace(path)
