"""What is measured: tasks, contestants, and the settings that all of them share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

OURS = "tunecask"
Objective = Literal["sft", "dpo", "kd"]
RANK, ALPHA = 16, 32
ATTENTION = ("q_proj", "v_proj", "output_proj")
LEARNING_RATE = 1e-4
LONGEST = 512
"""Tokens; no row is longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One row of the table."""

    name: str
    objective: Objective
    dtype: Literal["fp32", "bf16"]
    rows_per_step: int
    peers: tuple[str, ...]
    goal: float
    """Least ratio to the best peer's tokens per second."""


TASKS = (
    Task(
        name="sft-lora-bf16",
        objective="sft",
        dtype="bf16",
        rows_per_step=8,
        peers=("trl", "litgpt", "torchtune"),
        goal=5,
    ),
    Task(
        name="sft-lora-fp32",
        objective="sft",
        dtype="fp32",
        rows_per_step=8,
        peers=("trl", "litgpt", "torchtune"),
        goal=2,
    ),
    Task(
        name="dpo-lora-bf16",
        objective="dpo",
        dtype="bf16",
        rows_per_step=4,
        peers=("torchtune",),
        goal=2,
    ),
    Task(
        name="kd-lora-bf16",
        objective="kd",
        dtype="bf16",
        rows_per_step=8,
        peers=("torchtune",),
        goal=2,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training run of one contestant."""

    task: Task
    steps: int
    model: Path
    """A Hugging Face folder."""
    rows: Path
    """Canonical train.jsonl and eval.jsonl."""
    tokens: Path
    """The same rows as token ids and labels, for the peers: JSON Lines."""
    folder: Path
    """Of this run alone."""
