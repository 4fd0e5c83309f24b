"""entrypoint.tune.loss: the loss and gradients of whole logits, without whole logits."""

import pytest
import torch
import torch.nn.functional as F

from entrypoint.tune import compat

compat.apply()

from entrypoint.tune.fused import fuse  # noqa: E402
from entrypoint.tune.loss import LabelledCrossEntropy  # noqa: E402
from tests.unit.tune.decoders import model  # noqa: E402


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize("kind", ["tied", "apart", "capped", "adapted"])
def test_loss_and_gradients_are_those_of_whole_logits(kind: str, chunk: int, fused: bool):
    tokens = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(3))
    labels = torch.where(tokens % 3 == 0, tokens, -100)
    whole, chunked = model(kind), model(kind)
    if fused:
        fuse(chunked)
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


@pytest.mark.parametrize("kind", ["tied", "apart", "capped", "adapted"])
def test_in_bf16_computed_in_fp32_it_is_nearly_the_same(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("entrypoint.tune.products.SLOW_IN_BF16", True)
    monkeypatch.setattr("entrypoint.tune.products.AT_ONCE", 200)  # a few rows of a weight
    tokens = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(3))
    exact, narrow = model(kind), model(kind).bfloat16()
    for layer in narrow.layers:
        layer.attn.pos_embeddings.rope_init()  # in fp32, as in a run
    fuse(narrow)
    found = []
    for one in (exact, narrow):
        loss = LabelledCrossEntropy(5)
        loss.attach(one)
        loss.labels = torch.where(tokens % 3 == 0, tokens, -100)
        found.append(one(tokens))
        found[-1].backward()
    torch.testing.assert_close(found[1], found[0], rtol=0.02, atol=0)
    for (name, weight), other in zip(exact.named_parameters(), narrow.parameters(), strict=True):
        assert other.grad.dtype == torch.bfloat16
        far = (other.grad.float() - weight.grad).norm() / weight.grad.norm().clamp(min=1e-6)
        assert far < 0.1, name


@pytest.mark.parametrize("fused", [False, True])
def test_an_adapter_of_the_head_alone_is_trained(fused: bool):
    tokens = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(3))
    labels = torch.where(tokens % 3 == 0, tokens, -100)
    whole, chunked = model("adapted"), model("adapted")
    for one in (whole, chunked):
        for name, weight in one.named_parameters():
            weight.requires_grad_(name.startswith("output.lora"))
    if fused:
        fuse(chunked)
    F.cross_entropy(whole(tokens).flatten(0, 1), labels.flatten(), reduction="sum").backward()
    loss = LabelledCrossEntropy(5)
    loss.attach(chunked)
    loss.labels = labels
    chunked(tokens).backward()
    for name in ("lora_a", "lora_b"):
        wanted, found = (getattr(one.output, name).weight.grad for one in (whole, chunked))
        assert wanted.abs().sum() > 0
        torch.testing.assert_close(found, wanted)


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
