"""The training loop: one for every objective, method and world."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from entrypoint.errors import Interrupted, SettingsError, TrainingError
from entrypoint.hardware import peak_memory
from entrypoint.tune import checkpoints, state
from entrypoint.tune.batches import Batch, Encoded, Schedule, silent
from entrypoint.tune.finite import check_finite
from entrypoint.tune.metrics import MetricStream
from entrypoint.tune.objectives import Objective, add
from entrypoint.tune.progress import Progress
from entrypoint.tune.stopping import Stop
from entrypoint.tune.validation import Validation, padded
from entrypoint.tune.worlds import Ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """What the loop does beside learning."""

    epochs: int
    clip_grad_norm: float | None
    log_every: int
    """Steps between lines of the metrics."""
    say_every: float
    """Seconds between lines about the progress, where there is no terminal for a bar."""
    save_every: int | None
    """Steps between checkpoints; None saves one in the end alone."""
    keep: int
    """Newest checkpoints that are kept; the best by validation is kept beside them."""
    checkpoints: Path
    logs: Path
    seed: int
    method: str


@dataclass(kw_only=True, slots=True)
class Position:
    """Where training stands."""

    step: int = 0
    """Optimizer steps made."""
    epoch: int = 0
    """From 0."""
    rows: int = 0
    """Rows of the epoch that are done, in its order."""
    best_step: int | None = None
    best_loss: float = math.inf
    looks_since_best: int = 0
    due: dict[str, float] | None = None
    """Metrics of the step, when a signal came before its validation was through."""


@dataclass(kw_only=True, slots=True)
class Loop:
    """Everything that takes part in training, and the way it is put to work."""

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    scheduler: Any
    rows: Sequence[Encoded]
    schedule: Schedule
    layout: Callable[[Sequence[Encoded]], list[Batch]]
    validation: Validation | None
    habits: Habits
    ranks: Ranks
    stop: Stop
    stream: MetricStream | None
    """Of the first process."""
    activations: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """What the forward passes run in: offloading, say."""
    position: Position = field(default_factory=Position)
    saved: int = 0
    """Step of the newest checkpoint; before the first step there is nothing to save."""

    def run(self) -> None:
        """Train to the end, or to where a signal or validation ends it.

        Raises:
            Interrupted: a signal came; a checkpoint is saved.
            TrainingError: a loss or gradient is not finite.
        """
        here = self.position
        total = self.habits.epochs * self.schedule.steps
        self.model.train()
        shown = self.ranks.leads
        with Progress(total, here.step, every=self.habits.say_every, shown=shown) as progress:
            if here.due:
                self._conclude(here.due, progress)
            while not self._enough():
                if here.rows + self.schedule.rows_per_step > self.schedule.rows_per_epoch:
                    here.epoch, here.rows = here.epoch + 1, 0
                if here.epoch >= self.habits.epochs:
                    break
                self._advance(progress)
        self._save()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            SettingsError: it is of another data set, seed or set of weights.
        """
        tensors, facts = self._read(path)
        for name, value in self._identity().items():
            if facts["identity"][name] != value:
                raise SettingsError(
                    f"the checkpoint is of a run with {name} {facts['identity'][name]}, "
                    f"this one has {value}",
                    where=path,
                    hint="resume with the settings that the run was started with",
                )
        state.restore(self.model, self.optimizer, self.ranks, tensors, facts)
        self.scheduler.load_state_dict(facts["scheduler"])
        here = self.position = Position(**facts["position"])
        self.start_from(here.step)
        if self.ranks.of_the_leader(path.parent == self.habits.checkpoints):
            self.saved = here.step
        else:  # the best lies there, and nothing here yet
            here.best_step, here.best_loss, here.looks_since_best = None, math.inf, 0

    def start_from(self, step: int) -> None:
        """Forget what the folders hold of later steps: these steps are made again."""
        if self.ranks.leads:
            checkpoints.drop_after(self.habits.checkpoints, step)
        if self.stream:
            self.stream.rewind(step)

    def load_best(self) -> None:
        """Take the weights with the lowest validation loss.

        Raises:
            TrainingError: their checkpoint is no longer whole.
        """
        best = self.position.best_step
        if best is not None and best != self.position.step:
            path = self.habits.checkpoints / f"step_{best}"
            fault = checkpoints.fault_of(path) if self.ranks.leads else None
            if fault := self.ranks.of_the_leader(fault):
                raise TrainingError(f"the best checkpoint is not whole: {fault}", where=path)
            state.restore(self.model, self.optimizer, self.ranks, *self._read(path))
            if self.ranks.leads:
                print(f"the model is that of step {best}: its validation loss is the lowest")

    def _read(self, path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors, in the first process, and facts of a checkpoint, which may be on its node
        alone."""
        tensors, facts = checkpoints.read(path) if self.ranks.leads else ({}, {})
        return tensors, self.ranks.of_the_leader(facts)

    def _advance(self, progress: Progress) -> None:
        """One step and what is due after it."""
        began, here = time.perf_counter(), self.position
        order = self.schedule.order(here.epoch)[here.rows : here.rows + self.schedule.rows_per_step]
        metrics = self._step([int(row) for row in order[self.ranks.rank :: self.ranks.size]])
        here.step, here.rows = here.step + 1, here.rows + len(order)
        metrics |= {"epoch": here.epoch + 1}
        took = time.perf_counter() - began
        metrics |= {"tokens_per_second": metrics["tokens"] / took, "step_seconds": took}
        shown = {name: metrics[name] for name in ("loss", *self.objective.shown)}
        progress.advance(here.step, metrics["tokens"], shown)
        self._conclude(metrics, progress)

    def _conclude(self, metrics: dict[str, float], progress: Progress) -> None:
        """What is due after a step, its metrics so far given."""
        here = self.position
        here.due = metrics
        improved = self._validate(metrics, progress)
        here.due = None
        if self.stream and here.step % self.habits.log_every == 0:
            self.stream.log_dict(metrics | self._memory(), here.step)
        if improved or (self.habits.save_every and here.step % self.habits.save_every == 0):
            self._save()

    def _step(self, numbers: Sequence[int]) -> dict[str, float]:
        """Learn from rows: this process's part of the step's."""
        batches = self.layout([self.rows[number] for number in numbers])
        passes, stopped = self.ranks.largest(len(batches), self.stop.number)
        if stopped:
            self._interrupted(int(stopped))
        trained, real, count = self.ranks.total(
            sum(batch.trained for batch in batches),
            sum(batch.real for batch in batches),
            sum(self.objective.count(batch) for batch in batches),
        )
        loss, before = 0.0, state.random_numbers(self.ranks.device)
        sums: dict[str, float] = {}
        for batch in padded(batches, [silent(batches[0])], int(passes)):
            with self.activations:
                total, own = self.objective(batch.to(self.ranks.device))
            loss += float(total.detach())
            add(sums, own)
            # a model that is spread takes the mean of the processes' gradients
            torch.autograd.backward(total * (self.ranks.size / max(count, 1)))
            if self.stop.number and self.ranks.size == 1:
                state.set_random_numbers(before, self.ranks.device)
                self._interrupted(self.stop.number)
        loss, *means = (value / max(count, 1) for value in self.ranks.total(loss, *sums.values()))
        found = {"loss": loss, **dict(zip(sums, means, strict=True))}
        found["lr"] = self.optimizer.param_groups[0]["lr"]
        if self.habits.clip_grad_norm is not None:
            weights = [one for group in self.optimizer.param_groups for one in group["params"]]
            norm: Any = nn.utils.clip_grad_norm_(weights, self.habits.clip_grad_norm)
            found["grad_norm"] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        where = self.habits.logs, self.position.step + 1, self.position.epoch + 1
        check_finite(found, numbers, self.ranks, *where)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        return found | {"tokens": int(real), "tokens_trained": int(trained)}

    def _validate(self, metrics: dict[str, float], progress: Progress) -> bool:
        """Add the validation loss when it is due; whether it is the lowest so far."""
        here = self.position
        if self.validation is None or (here.step % self.validation.every and not self._last()):
            return False
        found = self.validation.loss(self.model, self.objective, self.ranks, self.stop)
        if isinstance(found, int):
            self._interrupted(found)
        loss, own = found
        metrics["validation_loss"] = loss
        metrics |= {f"validation_{name}": value for name, value in own.items()}
        progress.say(f"step {here.step}: validation loss {loss:.4f}")
        if loss < here.best_loss:
            here.best_step, here.best_loss, here.looks_since_best = here.step, loss, 0
            return True
        here.looks_since_best += 1
        return False

    def _last(self) -> bool:
        """Whether no step follows."""
        here, schedule = self.position, self.schedule
        full = here.rows + schedule.rows_per_step > schedule.rows_per_epoch
        return full and here.epoch + 1 >= self.habits.epochs

    def _enough(self) -> bool:
        patience = self.validation.patience if self.validation else None
        return patience is not None and self.position.looks_since_best >= patience

    def _interrupted(self, number: int) -> NoReturn:
        self.optimizer.zero_grad(set_to_none=True)
        self._save()
        raise Interrupted(
            number,
            f"interrupted after step {self.position.step}",
            where=str(self.habits.checkpoints),
        )

    def _save(self) -> None:
        here, folder = self.position, self.habits.checkpoints
        if here.step == self.saved:
            return
        tensors, facts = state.capture(self.model, self.optimizer, self.ranks)
        if self.ranks.leads:
            facts |= {
                "identity": self._identity(),
                "position": {name: getattr(here, name) for name in Position.__slots__},
                "scheduler": self.scheduler.state_dict(),
                "processes": self.ranks.size,
            }
            checkpoints.save(folder, here.step, tensors, facts)
            checkpoints.prune(folder, self.habits.keep, here.best_step)
        self.saved = here.step
        self.ranks.total(0)  # nobody goes on, or ends, before it is there

    def _identity(self) -> dict[str, Any]:
        """What a run cannot change on its way."""
        habits = self.habits
        return {"rows": self.schedule.rows, "seed": habits.seed, "method": habits.method}

    def _memory(self) -> dict[str, int]:
        if self.ranks.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.ranks.device)
        else:
            peak = peak_memory()
        return {"peak_memory_bytes": peak}
