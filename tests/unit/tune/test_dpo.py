"""entrypoint.tune.objectives.dpo: its losses, and what it asks of which model."""

from typing import Any

import pytest
import torch

from entrypoint.tune import compat

compat.apply()

from torchtune.modules.peft import disable_adapter  # noqa: E402
from torchtune.rlhf.loss import DPOLoss, RSOLoss  # noqa: E402

from entrypoint.tune.batches import Packed, silent  # noqa: E402
from entrypoint.tune.objectives.dpo import DirectPreference, IPOLoss  # noqa: E402
from entrypoint.tune.packing import attend_by_document  # noqa: E402
from entrypoint.tune.pairs import PackedPairs, sides  # noqa: E402
from tests.unit.tune.decoders import model  # noqa: E402
from tests.unit.tune.test_pairs import LONG, SHORT, row  # noqa: E402

ROWS = [LONG, SHORT, row([5, 6, 7, 8, 9], [5, 1])]
BETA = 0.3


def margins(decoder: Any, reference: Any) -> torch.Tensor:
    """Of each row, how much more the model prefers the chosen answer than the reference; plainly,
    one answer at a time."""

    def log_prob(one: Any, answer: Any) -> torch.Tensor:
        logits = one(torch.tensor([answer["tokens"]]))[0, :-1]
        labels = torch.tensor(answer["labels"][1:])
        each = logits.log_softmax(-1)[torch.arange(len(labels)), labels.clamp(min=0)]
        return (each * (labels != -100)).sum()

    found = []
    for pair in ROWS:
        chosen, rejected = sides(pair)
        with torch.no_grad():
            before = log_prob(reference, chosen) - log_prob(reference, rejected)
        found.append(log_prob(decoder, chosen) - log_prob(decoder, rejected) - before)
    return torch.stack(found)


FORMULAS = {
    # Rafailov et al. 2023, equation 7; with label smoothing Mitchell 2023, "cDPO"
    "sigmoid": (
        DPOLoss(BETA, 0.1),
        lambda margin: (
            -0.9 * (BETA * margin).sigmoid().log() - 0.1 * (1 - (BETA * margin).sigmoid()).log()
        ),
    ),
    # Azar et al. 2023, equation 17
    "ipo": (IPOLoss(BETA), lambda margin: (margin - 1 / (2 * BETA)) ** 2),
    # Liu et al. 2023, equation 9
    "hinge": (RSOLoss(BETA), lambda margin: (1 - BETA * margin).clamp(min=0)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_gradients_are_those_of_the_formula(name: str):
    loss, formula = FORMULAS[name]
    plain, packed = model("tied"), model("tied")
    torch.manual_seed(1)
    reference, again = model("apart"), model("apart")
    expected = formula(margins(plain, reference)).sum()
    expected.backward()
    for decoder in (packed, again):
        attend_by_document(decoder)
    objective = DirectPreference(packed, loss, again)
    (batch,) = PackedPairs(Packed(99, by_document=True))(ROWS)
    found, own = objective(batch)
    found.backward()
    torch.testing.assert_close(found, expected)
    for one, other in zip(plain.parameters(), packed.parameters(), strict=True):
        # IPO's are in the hundreds
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)
    assert all(weight.grad is None for weight in again.parameters())
    rewards = BETA * margins(plain, reference).detach()
    assert float(own["rewards/margins"]) == pytest.approx(float(rewards.sum()), abs=1e-5)
    assert float(own["rewards/accuracies"]) == int((rewards > 0).sum())
    assert set(objective.shown) <= own.keys()
    assert objective.count(batch) == 3


def test_the_reference_of_an_adapter_is_the_model_without_it():
    adapted = model("adapted")
    torch.nn.init.normal_(adapted.layers[0].attn.q_proj.lora_b.weight)
    with disable_adapter(adapted):
        bare = margins(adapted, model("apart"))
    assert not torch.allclose(margins(adapted, model("apart")), bare)
    attend_by_document(adapted)
    objective = DirectPreference(adapted, DPOLoss(), adapted)
    (batch,) = PackedPairs(Packed(99, by_document=True))(ROWS)
    adapted.train()
    said = objective.reference_log_probs(batch)
    assert adapted.training
    difference = said[:, 0] - said[:, 1]
    with disable_adapter(adapted), torch.no_grad():
        now = objective._log_probs(adapted, batch)
    torch.testing.assert_close(difference, now[:, 0] - now[:, 1])
    assert not any(module.disabled for module in adapted.modules() if hasattr(module, "disabled"))


def test_what_is_known_of_the_reference_is_not_asked_for():
    decoder = model("tied")
    attend_by_document(decoder)

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    objective = DirectPreference(decoder, DPOLoss(), decoder)
    objective.reference_log_probs = never  # type: ignore[method-assign]
    known = [{**pair, "reference": (-3.0, -4.0)} for pair in ROWS]
    (batch,) = PackedPairs(Packed(99, by_document=True))(known)
    total, _ = objective(batch)
    total.backward()
    assert objective(silent(batch))[0].item() == 0


def test_a_silent_batch_is_no_loss():
    decoder = model("tied")
    attend_by_document(decoder)
    objective = DirectPreference(decoder, DPOLoss(), decoder)
    (batch,) = PackedPairs(Packed(99, by_document=True))(ROWS)
    total, own = objective(silent(batch))
    total.backward()
    assert total.item() == 0
    assert not any(float(value) for value in own.values())
    assert own.keys() == objective(batch)[1].keys()
