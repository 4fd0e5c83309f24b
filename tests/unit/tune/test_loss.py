"""entrypoint.tune.loss: the loss and gradients of whole logits, without whole logits."""

import pytest
import torch
import torch.nn.functional as F

from entrypoint.tune import compat

compat.apply()

from entrypoint.tune.loss import LabelledCrossEntropy  # noqa: E402
from tests.unit.tune.decoders import model  # noqa: E402


@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize("kind", ["tied", "apart", "capped", "adapted"])
def test_loss_and_gradients_are_those_of_whole_logits(kind: str, chunk: int):
    tokens = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(3))
    labels = torch.where(tokens % 3 == 0, tokens, -100)
    whole, chunked = model(kind), model(kind)
    logits = whole(tokens).flatten(0, 1)
    expected = F.cross_entropy(logits, labels.flatten(), reduction="sum")
    (expected * 0.25).backward()
    loss = LabelledCrossEntropy(chunk)
    loss.attach(chunked)
    loss.labels = labels
    found = chunked(tokens)
    (found * 0.25).backward()
    torch.testing.assert_close(found, expected)
    for (name, one), other in zip(whole.named_parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=lambda text, name=name: name + text)
    with torch.no_grad():
        torch.testing.assert_close(chunked(tokens), expected)


def test_a_frozen_head_gets_no_gradient():
    chunked = model("tied")
    chunked.tok_embeddings.requires_grad_(False)
    loss = LabelledCrossEntropy()
    loss.attach(chunked)
    loss.labels = torch.ones(1, 4, dtype=torch.long)
    chunked(torch.arange(4)[None]).backward()
    assert chunked.tok_embeddings.weight.grad is None
    assert chunked.layers[0].attn.q_proj.weight.grad.abs().sum() > 0


def test_logits_exist_for_labels_alone_and_a_chunk_at_a_time():
    seen = []

    def head(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden))
        return hidden @ weight

    chunked, loss = model("apart"), LabelledCrossEntropy(chunk=3)
    weight = chunked.output.weight.detach().T
    loss.attach(chunked)
    del chunked.output
    wrapper = torch.nn.Module()
    wrapper.forward = head
    chunked.output = wrapper
    loss.labels = torch.tensor([[-100, 1, 2, -100, 3, 4, -100, 5]])
    chunked(torch.arange(8)[None])
    assert seen == [3, 2]


def test_no_label_is_a_loss_of_nothing_that_can_be_learned_from():
    chunked, loss = model("tied"), LabelledCrossEntropy()
    loss.attach(chunked)
    loss.labels = torch.full((1, 4), -100)
    found = chunked(torch.arange(4)[None])
    found.backward()
    assert found.item() == 0
    assert all(weight.grad.abs().sum() == 0 for weight in chunked.parameters())
    with torch.no_grad():
        assert chunked(torch.arange(4)[None]).item() == 0
