"""entrypoint.tune.objectives.kd: the distillation loss, without whole logits."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from entrypoint.errors import SettingsError
from entrypoint.tune import compat

compat.apply()

from torchtune.models.llama3_2 import llama3_2  # noqa: E402
from torchtune.modules.loss import ForwardKLLoss, ReverseKLLoss  # noqa: E402
from torchtune.modules.peft import disable_adapter  # noqa: E402

from entrypoint.tune.batches import Batch, silent  # noqa: E402
from entrypoint.tune.loss import LabelledCrossEntropy  # noqa: E402
from entrypoint.tune.objectives.kd import Distillation, LabelledDivergence  # noqa: E402
from tests.unit.tune.decoders import SIZES, model  # noqa: E402

RATIO = 0.3


def batch() -> Batch:
    tokens = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(3))
    labels = torch.where(tokens % 3 == 0, tokens, -100)
    count = int((labels != -100).sum())
    return Batch(tokens=tokens, labels=labels, positions=None, mask=None, real=24, trained=count)


def teacher(vocabulary: int = 31) -> Any:
    """Wider and deeper than the student, and with room for more tokens."""
    torch.manual_seed(5)
    sizes = {name: value for name, value in SIZES.items() if name != "head_dim"}
    wider = {"embed_dim": 32, "num_layers": 3, "vocab_size": vocabulary}
    made = llama3_2(**sizes | wider, tie_word_embeddings=False)
    # sure of itself: a temperature makes a difference
    torch.nn.init.normal_(made.output.weight)
    return made


def direct(student: Any, taught: torch.Tensor, temperature: float, direction: str) -> torch.Tensor:
    """Hinton et al. 2015, from whole logits."""
    at = batch().labels.flatten() != -100
    said, labels = student.flatten(0, 1)[at], batch().labels.flatten()[at]
    known = taught.flatten(0, 1)[at, : said.shape[1]]
    q, p = (logits / temperature for logits in (said, known))
    q, p = q.softmax(-1), p.softmax(-1)
    divergence = p * (p / q).log() if direction == "forward" else q * (q / p).log()
    cross_entropy = F.cross_entropy(said, labels, reduction="sum")
    return (1 - RATIO) * cross_entropy + RATIO * temperature**2 * divergence.sum()


@pytest.mark.parametrize(("temperature", "vocabulary"), [(1.0, 31), (3.0, 40)])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("kind", ["tied", "adapted"])
def test_loss_and_gradients_are_those_of_the_formula(
    kind: str, direction: Any, temperature: float, vocabulary: int
):
    plain, chunked = model(kind), model(kind)
    with torch.no_grad():
        taught = teacher(vocabulary)(batch().tokens)
    expected = direct(plain(batch().tokens), taught, temperature, direction)
    (expected * 0.25).backward()
    divergence = LabelledDivergence(temperature, direction)
    asked = teacher(vocabulary)
    objective = Distillation(chunked, asked, LabelledCrossEntropy(5), divergence, RATIO)
    found, own = objective(batch())
    (found * 0.25).backward()
    torch.testing.assert_close(found, expected)
    for (name, one), other in zip(plain.named_parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=lambda text, name=name: name + text)
    assert all(weight.grad is None for weight in asked.parameters())
    parts = float(own["cross_entropy"]), float(own["kl_divergence"])
    whole = (1 - RATIO) * parts[0] + RATIO * temperature**2 * parts[1]
    assert whole == pytest.approx(float(expected.detach()), rel=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(objective(batch())[0], expected)


def test_an_adapters_teacher_can_be_the_model_without_it():
    adapted = model("adapted")
    torch.nn.init.normal_(adapted.layers[0].attn.q_proj.lora_b.weight)
    with disable_adapter(adapted), torch.no_grad():
        taught = adapted(batch().tokens)
    expected = direct(adapted(batch().tokens), taught, 1.0, "forward")
    objective = Distillation(adapted, adapted, LabelledCrossEntropy(5), LabelledDivergence(), RATIO)
    found, own = objective(batch())
    torch.testing.assert_close(found, expected)
    assert float(own["kl_divergence"]) > 0


@pytest.mark.parametrize(
    ("stock", "direction"), [(ForwardKLLoss, "forward"), (ReverseKLLoss, "reverse")]
)
def test_torchtunes_divergences_differ_by_the_teachers_entropy_at_most(stock: Any, direction: Any):
    """Its forward divergence is a cross-entropy: it leaves out what does not depend on the
    student."""
    with torch.no_grad():
        taught = teacher()(batch().tokens).flatten(0, 1)
        said = model("tied")(batch().tokens).flatten(0, 1)
    at = batch().labels.flatten() != -100
    theirs = stock()(said, taught, batch().labels.flatten()) * at.sum()
    ours = LabelledDivergence(1.0, direction)(said[at], taught[at])
    p = taught[at].softmax(-1)
    entropy = -(p * p.log()).sum() if direction == "forward" else 0.0
    torch.testing.assert_close(theirs, ours + entropy)


def test_logits_of_neither_model_exist_for_all_tokens():
    seen: dict[str, list[int]] = {"student": [], "teacher": []}
    student, asked = model("apart"), teacher()
    for name, decoder in (("student", student), ("teacher", asked)):
        decoder.output.register_forward_hook(
            lambda *given, name=name: seen[name].append(len(given[1][0]))
        )
    Distillation(student, asked, LabelledCrossEntropy(4), LabelledDivergence(), 0.5)(batch())
    assert seen["student"] == seen["teacher"]
    assert sum(seen["teacher"]) == batch().trained
    assert max(seen["teacher"]) == 4


def test_a_silent_batch_is_no_loss():
    student = model("tied")
    objective = Distillation(student, teacher(), LabelledCrossEntropy(), LabelledDivergence(), 0.5)
    total, own = objective(silent(batch()))
    total.backward()
    assert total.item() == 0
    assert own.keys() == set(objective.shown)
    assert all(not weight.grad.any() for weight in student.parameters())


def test_the_two_losses_must_be_of_one_kind():
    with pytest.raises(SettingsError, match="both be torchtune's, or neither"):
        Distillation(model("tied"), teacher(), torch.nn.CrossEntropyLoss(), LabelledDivergence(), 1)
