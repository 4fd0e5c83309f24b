"""Knowledge distillation (Hinton et al. 2015): a teacher's probabilities beside the labels."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torchtune.modules import peft

from entrypoint.errors import SettingsError
from entrypoint.tune.batches import Batch
from entrypoint.tune.frozen import asked
from entrypoint.tune.loss import (
    IN_CACHE,
    Head,
    LabelledCrossEntropy,
    chunks,
    cross_entropy,
    labelled,
    sum_by_chunks,
)
from entrypoint.tune.objectives import Sums

Direction = Literal["forward", "reverse"]


class LabelledDivergence(nn.Module):
    """Kullback-Leibler divergence between teacher and student, for labelled tokens alone.

    Args:
        temperature: what both models' logits are divided by; more than 1 smooths.
        direction: `forward`, from the teacher to the student (sum of p log p/q, p the teacher's):
            the student covers what the teacher finds likely; or `reverse`: it avoids what the
            teacher finds unlikely.
    """

    def __init__(self, temperature: float = 1.0, direction: Direction = "forward") -> None:
        super().__init__()
        self.temperature, self.direction = temperature, direction

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Sum over tokens, of logits [tokens, vocabulary] in fp32. Of vocabularies that one of the
        models pads to more entries, the common ones count."""
        return self.with_gradient(student, teacher)[0]

    def with_gradient(
        self, student: torch.Tensor, teacher: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and its gradient by the student's logits: (q - p) / T forward, and in reverse
        q (log q/p - divergence of the token) / T, q being the student's probabilities."""
        shared = min(student.shape[-1], teacher.shape[-1])
        said, known = (
            F.log_softmax(logits[:, :shared] / self.temperature, dim=-1)
            for logits in (student, teacher)
        )
        gradient = torch.zeros_like(student)
        if self.direction == "forward":
            weights = known.exp()
            each = torch.linalg.vecdot(weights, known.sub_(said))
            own = said.exp_().sub_(weights)
        else:
            apart, weights = said - known, said.exp()
            each = torch.linalg.vecdot(weights, apart)
            own = apart.sub_(each[:, None]).mul_(weights)
        gradient[:, :shared] = own.div_(self.temperature)
        return each.sum(), gradient


class Distillation:
    """ratio x T^2 x divergence from the teacher + (1 - ratio) x cross-entropy of the labels.

    With the losses of this package logits exist for labelled tokens alone, some at a time, of
    both models. With torchtune's, whose divergences know no temperature, all of them do.

    Args:
        model: the decoder that is trained; its output is arranged for the loss.
        teacher: the decoder to learn from: another one, or `model` itself, whose adapters are
            then off.
        loss: LabelledCrossEntropy, or one of torchtune's.
        divergence: LabelledDivergence, or one of torchtune's.
        ratio: weight of the divergence, 0 to 1.

    Raises:
        SettingsError: one loss is this package's and the other torchtune's.
    """

    shown: tuple[str, ...] = ("cross_entropy", "kl_divergence")

    def __init__(
        self, model: Any, teacher: Any, loss: nn.Module, divergence: nn.Module, ratio: float
    ) -> None:
        self.model, self.teacher, self.ratio = model, teacher, ratio
        self.loss: Any = loss
        self.divergence: Any = divergence
        if isinstance(loss, LabelledCrossEntropy) != isinstance(divergence, LabelledDivergence):
            raise SettingsError(
                "loss and kd_loss must both be torchtune's, or neither",
                where="the recipe",
                hint="entrypoint.tune.loss.LabelledCrossEntropy goes with "
                "entrypoint.tune.objectives.kd.LabelledDivergence",
            )
        self._batch: Batch | None = None
        self._taught: torch.Tensor | None = None
        self._sums: dict[str, torch.Tensor] = {}
        if isinstance(loss, LabelledCrossEntropy):
            self._attach(loss.chunk)
        elif count := getattr(loss, "num_output_chunks", 0):
            for decoder in (model, teacher):
                decoder.set_num_output_chunks(count)

    def count(self, batch: Batch) -> int:
        """Labels."""
        return batch.trained

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, Sums]:
        """Sum of the loss over the batch's labels."""
        self._batch, self._taught = batch, None
        with asked(self.teacher):
            taught = _run(self.teacher, batch)
        if not isinstance(self.loss, LabelledCrossEntropy):
            return self._of_logits(_run(self.model, batch), taught, batch)
        self._taught = taught
        self._sums = {name: torch.zeros((), device=batch.tokens.device) for name in self.shown}
        with nullcontext() if self.teacher is self.model else _whole(self.teacher):
            total: torch.Tensor = _run(self.model, batch)
        self._taught = None
        return total, self._sums

    def _attach(self, chunk: int) -> None:
        """The teacher returns its hidden states where labels are; the student its loss, given
        these."""

        def hidden_states(decoder: Any, hidden: torch.Tensor) -> torch.Tensor:
            assert self._batch is not None
            chosen: torch.Tensor = decoder.norm(hidden.flatten(0, 1)[labelled(self._batch.labels)])
            return chosen

        def unembed(hidden: torch.Tensor) -> torch.Tensor:
            assert self._batch is not None
            chosen, taught = hidden_states(self.model, hidden), self._taught
            if taught is None:  # the model is its own teacher
                return chosen
            labels = self._batch.labels.flatten()[labelled(self._batch.labels)]

            def loss(logits: torch.Tensor, piece: slice) -> torch.Tensor:
                return self._of_chunk(logits, taught[piece], labels[piece])

            return sum_by_chunks(self.model.output, chosen, loss, chunk)

        if self.teacher is not self.model:
            self.teacher.unembed = lambda hidden: hidden_states(self.teacher, hidden)
        self.model.unembed = unembed

    def _of_chunk(
        self, student: torch.Tensor, taught: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Loss; its gradient by the student's logits takes their place."""
        with torch.no_grad(), _without_adapter(self.teacher.output):
            teacher = self.teacher.output(taught)
        weight = self.ratio * self.divergence.temperature**2
        total = student.new_zeros((), dtype=torch.float32)
        for piece in chunks(student, IN_CACHE if student.device.type == "cpu" else len(student)):
            wide = student[piece].float()
            divergence, of_teacher = self.divergence.with_gradient(wide, teacher[piece].float())
            losses = cross_entropy(wide, labels[piece])
            student[piece] = wide.mul_(1 - self.ratio).add_(of_teacher, alpha=weight)
            self._sums["cross_entropy"] += losses.sum()
            self._sums["kl_divergence"] += divergence
            total += (1 - self.ratio) * losses.sum() + weight * divergence
        return total

    def _of_logits(self, logits: Any, taught: Any, batch: Batch) -> tuple[torch.Tensor, Sums]:
        labels = batch.labels
        if not batch.trained:  # a mean over nothing is no number, nor is its gradient
            parts = logits if isinstance(logits, list) else [logits]
            nothing = torch.stack([part.sum() for part in parts]).sum() * 0
            return nothing, dict.fromkeys(self.shown, 0.0)
        if not isinstance(logits, list):
            logits, taught, labels = logits.flatten(0, 1), taught.flatten(0, 1), labels.flatten()
        cross_entropy = self.loss(logits, labels) * batch.trained
        divergence = self.divergence(logits, taught, labels) * batch.trained
        total: torch.Tensor = (1 - self.ratio) * cross_entropy + self.ratio * divergence
        return total, {
            "cross_entropy": cross_entropy.detach(),
            "kl_divergence": divergence.detach(),
        }


def _run(decoder: Any, batch: Batch) -> Any:
    return decoder(batch.tokens, mask=batch.mask, input_pos=batch.positions)


@contextmanager
def _whole(teacher: Any) -> Iterator[None]:
    """While inside, the output head of a decoder that is spread over processes can be called."""
    if not hasattr(teacher, "unshard"):
        yield
        return
    teacher.unshard()
    yield
    teacher.reshard()


def _without_adapter(head: Head) -> Any:
    return peft.disable_adapter(head) if isinstance(head, nn.Module) else nullcontext()
