"""entrypoint.tune.logprobs: log-probabilities of answers as whole logits give them."""

from typing import Any

import pytest
import torch

from entrypoint.tune import compat

compat.apply()

from entrypoint.tune.batches import Batch, silent  # noqa: E402
from entrypoint.tune.logprobs import AnswerLogProbs  # noqa: E402
from tests.unit.tune.decoders import model  # noqa: E402


def batch() -> Batch:
    """Two pairs: four rows of one answer each, some of whose tokens have labels."""
    tokens = torch.randint(0, 31, (4, 12), generator=torch.Generator().manual_seed(3))
    labels = torch.where(tokens % 3 == 0, tokens, -100)
    return Batch(
        tokens=tokens, labels=labels, positions=None, mask=None, real=48, trained=16, pairs=2,
        answers=torch.tensor([0, 2, 1, 3])[:, None].expand(4, 12),
    )  # fmt: skip


def whole(decoder: Any, given: Batch) -> torch.Tensor:
    """[pairs, 2], the plain way."""
    each = decoder(given.tokens).log_softmax(-1)
    picked = each.gather(2, given.labels.clamp(min=0)[..., None])[..., 0]
    sums = (picked * (given.labels != -100)).sum(1)
    return torch.stack([sums[:2], sums[2:]], 1)


@pytest.mark.parametrize("chunk", [5, 1000])
@pytest.mark.parametrize("trained_head", [True, False])
@pytest.mark.parametrize("kind", ["tied", "apart", "capped", "adapted"])
def test_sums_and_gradients_are_those_of_whole_logits(kind: str, trained_head: bool, chunk: int):
    plain, chunked = model(kind), model(kind)
    if not trained_head:
        for decoder in (plain, chunked):
            decoder.tok_embeddings.requires_grad_(False)
            if isinstance(decoder.output, torch.nn.Module):
                decoder.output.requires_grad_(False)
    weights = torch.tensor([[0.5, -2.0], [3.0, 0.1]])
    expected = whole(plain, batch())
    (expected * weights).sum().backward()
    head = AnswerLogProbs(chunk)
    head.attach(chunked)
    head.batch = batch()
    found = chunked(batch().tokens)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, expected)
    for (name, one), other in zip(plain.named_parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=lambda text, name=name: name + text)
    with torch.no_grad():
        torch.testing.assert_close(chunked(batch().tokens), expected)


@pytest.mark.parametrize("trained_head", [True, False])
def test_a_silent_batch_has_gradients_of_nothing_for_every_weight(trained_head: bool):
    """Processes must reduce the same weights, whether they have rows or not."""
    decoder, head = model("apart"), AnswerLogProbs()
    decoder.output.requires_grad_(trained_head)
    head.attach(decoder)
    head.batch = silent(batch())
    found = decoder(batch().tokens)
    assert found.shape == (0, 2)
    found.sum().backward()
    trained = [weight for weight in decoder.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and not weight.grad.any() for weight in trained)


def test_logits_exist_for_labels_alone_and_a_chunk_at_a_time():
    seen = []
    decoder, head = model("apart"), AnswerLogProbs(chunk=4)
    decoder.output.register_forward_hook(lambda *given: seen.append(len(given[1][0])))
    head.attach(decoder)
    head.batch = batch()
    with torch.no_grad():
        decoder(batch().tokens)
    labels = int((batch().labels != -100).sum())
    assert sum(seen) == labels
    assert max(seen) == 4
