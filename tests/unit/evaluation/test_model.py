"""entrypoint.evaluation.model: our batches give what transformers and lm-eval give."""

from pathlib import Path
from typing import Any

import pytest
import torch

from entrypoint.evaluation.batches import Limits, Scored, cheapest, cut
from entrypoint.evaluation.generation import can_share, greedy
from entrypoint.evaluation.likelihood import likelihoods
from entrypoint.evaluation.memory import limits_of
from entrypoint.evaluation.model import Model
from entrypoint.evaluation.ranks import Ranks
from tests.checkpoints import write_checkpoint

KINDS = ("llama3.2", "mistral", "gemma2", "phi4", "qwen3")
"""Among them windows that slide, caps and norms of heads."""


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    folder = write_checkpoint(tmp_path_factory.mktemp("models") / request.param, request.param)
    eager = {"attn_implementation": "eager"} if request.param == "gemma2" else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **eager).eval()


def tokens(*lengths: int, beginning: int = 0) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(sum(lengths))

    def random(count: int) -> list[int]:
        return torch.randint(2, 96, (count,), generator=generator).tolist()

    shared = random(beginning)
    return [tuple(shared + random(length - beginning)) for length in lengths]


@pytest.mark.parametrize("beginning", [0, 12])
def test_likelihoods_are_those_of_a_row_by_itself(model: Any, beginning: int):
    rows = tokens(20, 30, 17, 25, beginning=beginning)
    sequences = [
        Scored(ids=ids, targets=tuple(range(len(ids) - ending, len(ids))))
        for ids, ending in zip(rows, (3, 5, 1, 4), strict=True)
    ]
    plan = cheapest(sequences, Limits(rows=4), share=can_share(model, 30))
    if can_share(model, 30):
        assert plan[0].shared == (12 if beginning else 0)
    found = {
        row: score(sequences[row])
        for batch in plan
        for row, score in likelihoods(model, batch, sequences, keeps_logits=True)
    }
    for row, sequence in enumerate(sequences):
        with torch.no_grad():
            logits = model(torch.tensor([sequence.ids])).logits[0]
        log_probabilities = logits.log_softmax(-1)
        expected = sum(log_probabilities[at - 1, sequence.ids[at]] for at in sequence.targets)
        equal = all(logits[at - 1].argmax() == sequence.ids[at] for at in sequence.targets)
        assert found[row][0] == pytest.approx(float(expected), abs=1e-4)
        assert found[row][1] == equal


@pytest.mark.parametrize("beginning", [0, 12])
def test_answers_are_those_of_transformers(model: Any, beginning: int):
    prompts = tokens(13, 22, 18, beginning=beginning)
    expected = []
    for ids in prompts:
        found = model.generate(
            torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=1
        )
        expected.append(found[0, len(ids) :].tolist())
    # a token that comes up in mid-answer ends it, so that rows leave the batch at different times
    end = expected[0][3]
    sequences = [Scored(ids=ids, targets=(len(ids),)) for ids in prompts]
    (batch,) = cut(range(3), sequences, Limits(rows=3), share=can_share(model, 30))
    found = greedy(
        model,
        [prompts[row] for row in batch.rows],
        shared=batch.shared,
        new_tokens=8,
        ends=frozenset({end, 1}),
        is_over=lambda _: False,
    )
    for row, answer in zip(batch.rows, found, strict=True):
        stops = [at for at, token in enumerate(expected[row]) if token in (end, 1)]
        assert answer == expected[row][: stops[0] + 1 if stops else None]


@pytest.fixture(scope="module")
def both(tiny_model: Path) -> tuple[Any, Any]:
    """lm-eval's own class, and ours on the same model."""
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=str(tiny_model), dtype="float32", device="cpu", batch_size=3)
    ours = Model(theirs.model, theirs.tokenizer, batch_size=None, ranks=Ranks())
    return theirs, ours


def asked(kind: str, *arguments: Any) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=0, metadata=("t", 0, 1))
        for one in arguments
    ]


def test_what_lm_eval_asks_for_is_answered_as_by_its_own_class(both: tuple[Any, Any]):
    theirs, ours = both
    beginning = "<|im_start|>user\nWho books the table for the train to Oslo?"
    choices = [(f"{beginning} {n}", f" {answer}") for n in (1, 22) for answer in "A B Rome".split()]
    found = ours.loglikelihood(asked("loglikelihood", *choices))
    for mine, other in zip(
        found, theirs.loglikelihood(asked("loglikelihood", *choices)), strict=True
    ):
        assert mine[0] == pytest.approx(other[0], abs=1e-4)
        assert mine[1] == other[1]
    rolling = [("A text of some words about a table in Rome. " * 40,), ("Short.",)]
    assert ours.loglikelihood_rolling(asked("loglikelihood_rolling", *rolling)) == pytest.approx(
        theirs.loglikelihood_rolling(asked("loglikelihood_rolling", *rolling)), rel=1e-5
    )
    prompts = [
        (f"{beginning} {n}", {"until": until, "max_gen_toks": 12, "do_sample": False})
        for n in (3, 4444)
        for until in ([], ["a"])
    ]
    assert ours.generate_until(asked("generate_until", *prompts)) == theirs.generate_until(
        asked("generate_until", *prompts)
    )
    assert ours.work.scored_tokens > 0
    assert ours.work.generated_tokens > 0


def test_what_is_not_greedy_is_left_to_transformers(both: tuple[Any, Any]):
    theirs, ours = both
    settings = {"until": [], "max_gen_toks": 8, "repetition_penalty": 1.5}
    prompts = asked("generate_until", ("Book a table", settings), ("Hello", settings))
    assert ours.generate_until(prompts) == theirs.generate_until(prompts)
    ours.model.generation_config.repetition_penalty = 1.5
    try:
        assert not ours._is_greedy()
    finally:
        ours.model.generation_config.repetition_penalty = 1.0


def test_a_batch_that_does_not_fit_goes_through_in_halves(
    both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
):
    _, ours = both
    choices = [(f"Who books {name}?", " an answer") for name in "ABCDEFGH"]
    expected = ours.loglikelihood(asked("loglikelihood", *choices))
    sizes = []

    def scarce(batch: Any, sequences: Any) -> Any:
        sizes.append(len(batch.rows))
        if len(batch.rows) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return likelihoods(ours.model, batch, sequences, keeps_logits=True)

    monkeypatch.setattr(ours, "_pass", scarce)
    found = ours.loglikelihood(asked("loglikelihood", *choices))
    assert max(sizes) > 2
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-4)


def test_limits_follow_the_model_and_the_user(both: tuple[Any, Any]):
    model = both[0].model
    auto = limits_of(model, rows=None, processes=1, new_tokens=0)
    assert auto.room
    assert auto.logit_bytes == 512 * 12
    shared = limits_of(model, rows=None, processes=4, new_tokens=0)
    assert shared.room
    assert shared.room < auto.room
    assert limits_of(model, rows=7, processes=1, new_tokens=0).rows == 7
