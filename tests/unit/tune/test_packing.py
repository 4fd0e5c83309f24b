"""entrypoint.tune.packing: which rows share a window, and that they do not see each other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.data.source import EMBEDDED_FOLDER
from entrypoint.models.card import describe, read_config
from entrypoint.models.weights import find_shards
from entrypoint.tune import compat
from tests.checkpoints import KINDS, write_checkpoint

compat.apply()

from entrypoint.data.windows import best_fit  # noqa: E402
from entrypoint.tune.batches import Packed  # noqa: E402
from entrypoint.tune.packing import (  # noqa: E402
    Documents,
    attend_by_document,
    seen_by_asked,
    window_of,
)
from entrypoint.tune.tokenizer import ChatTokenizer  # noqa: E402


@given(st.lists(st.integers(1, 120), max_size=60), st.integers(1, 100))
def test_every_row_is_in_one_window_and_whole(lengths: list[int], window: int):
    windows = best_fit(lengths, window)
    assert sorted(row for rows in windows for row in rows) == list(range(len(lengths)))
    for rows in windows:
        assert sum(lengths[row] for row in rows) <= window or len(rows) == 1
    # no two windows would have fitted into one, long rows apart
    filled = sorted(sum(lengths[row] for row in rows) for rows in windows)
    assert len(filled) < 2 or filled[0] + filled[1] > window


def test_windows_of_the_built_in_data_are_nearly_full(tiny_model: Path):
    tokenizer = ChatTokenizer(str(tiny_model))
    lengths = [
        len(tokenizer(json.loads(line))["tokens"])
        for line in (EMBEDDED_FOLDER / "train.jsonl").read_text().splitlines()
    ]
    windows = best_fit(lengths, 1024)
    assert sum(lengths) / (1024 * len(windows)) >= 0.95


def test_a_mask_is_causal_and_keeps_rows_apart():
    found = Documents((2, 1)).mask(torch.device("cpu"))
    assert found.int().tolist() == [[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]


@pytest.mark.parametrize("kind", KINDS)
def test_packed_logits_are_those_of_the_rows_alone(kind: str, tmp_path: Path):
    from omegaconf import OmegaConf
    from torchtune.config import instantiate

    folder = write_checkpoint(tmp_path / kind, kind)
    card = describe(kind, folder, read_config(folder / "config.json"), find_shards(folder))
    torch.manual_seed(1)
    model: Any = instantiate(
        OmegaConf.create({"_component_": card.builder, **card.arguments, "max_seq_len": 64})
    ).eval()
    # in fp32 the last bit of the largest logits is nearly the bound
    model.double()
    ids = torch.randint(0, 96, (60,)).split([17, 30, 1, 12])
    with torch.no_grad():
        alone = torch.cat([model(row[None])[0] for row in ids])
    by_document = attend_by_document(model)
    assert by_document == (kind != "gemma2")
    rows = [{"tokens": row.tolist(), "labels": row.tolist()} for row in ids]
    (batch,) = Packed(64, by_document)(rows)
    with torch.no_grad():
        packed = model(batch.tokens, mask=batch.mask, input_pos=batch.positions)[0]
    assert alone.std() > 0.1
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)


def test_what_rows_begin_with_is_computed_once(tiny_model: Path):
    """The same logits and gradients as of rows side by side."""
    from torchtune.models.llama3_2 import llama3_2

    sizes = {"vocab_size": 9, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
    model = llama3_2(**sizes, embed_dim=8, intermediate_dim=8, max_seq_len=8)
    rows = [[1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 1], [1, 2, 6]]
    alone = torch.cat([model(torch.tensor([row]))[0] for row in rows])
    weights = torch.randn(alone.shape)
    expected = torch.autograd.grad((alone * weights).sum(), model.parameters())
    assert attend_by_document(model)
    (batch,) = Packed(64, by_document=True)([{"tokens": row, "labels": row} for row in rows])
    seen = []
    hook = model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    packed = model(batch.tokens, mask=batch.mask, input_pos=batch.positions)[0]
    hook.remove()
    assert seen == [(1, 8, 8)], "1 2 3 4, 5, 2 1, 6"
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)
    found = torch.autograd.grad((packed * weights).sum(), model.parameters())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recomputed", [False, True])
def test_the_last_layer_ends_at_tokens_with_a_label(recomputed: bool):
    """With the hidden states of these tokens, and all gradients, as without."""
    from torchtune.models.llama3_2 import llama3_2
    from torchtune.modules import TransformerSelfAttentionLayer
    from torchtune.training import set_activation_checkpointing

    sizes = {"vocab_size": 9, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
    model = llama3_2(**sizes, embed_dim=8, intermediate_dim=8, max_seq_len=8)
    if recomputed:
        set_activation_checkpointing(model, auto_wrap_policy={TransformerSelfAttentionLayer})
    assert attend_by_document(model)
    rows = [
        {"tokens": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]},
        {"tokens": [1, 2, 5], "labels": [-100, -100, 5]},
        {"tokens": [1, 2, 3, 6], "labels": [-100, -100, 3, 6]},
    ]
    whole, found = (Packed(64, True, labelled)(rows)[0] for labelled in (False, True))
    at = (whole.labels[0] != -100).nonzero().flatten()
    weights = torch.randn(len(at), 9)

    def logits(batch: Any) -> tuple[torch.Tensor, ...]:
        given = model(batch.tokens, mask=batch.mask, input_pos=batch.positions)[0, at]
        return (given, *torch.autograd.grad((given * weights).sum(), list(model.parameters())))

    expected = logits(whole)
    seen: list[int] = []
    hooks = [
        layer.mlp.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
        for layer in model.layers
    ]
    results = logits(found)
    for hook in hooks:
        hook.remove()
    assert seen[:2] == [3, 5], (
        "1 2 3, and of all what says the labels: 2 for 3 and 5, 3 for 4 and 6"
    )
    for one, other in zip(results, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("lengths", "asked", "rows"),
    [
        ((3, 4), None, [range(3), range(3, 7)]),
        ((3, 4), (1, 4, 5), [range(2), range(3, 6)]),
        ((3, 4), (2, 3), [range(3), range(3, 4)]),
        ((3, 4, 2), (1, 8), [range(2), range(7, 9)]),
    ],
)
def test_rows_end_at_the_last_token_that_is_asked_for(
    lengths: tuple[int, ...], asked: tuple[int, ...] | None, rows: list[range]
):
    assert seen_by_asked(Documents(lengths=lengths, asked=asked)) == rows


def test_a_beginning_is_computed_for_the_row_that_needs_it_though_another_ended_before():
    # 1 2 of the first row, of which the second goes on to 3; the first is asked for at 1 alone
    documents = Documents(lengths=(2, 4), twins=(0, 1, 0, 1, 4, 5), asked=(0, 4))
    window = window_of(documents, torch.device("cpu"))
    assert window.kept is not None
    assert window.kept.tolist() == [0, 1, 4]
    assert window.arrangement.asked is not None
    assert window.arrangement.asked.tolist() == [0, 2]
    assert sorted(group.length for group in window.arrangement.groups) == [1, 3]


def test_where_something_is_dropped_every_row_is_computed():
    from torchtune.models.llama3_2 import lora_llama3_2

    sizes = {"vocab_size": 9, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
    model = lora_llama3_2(
        ["q_proj"], **sizes, embed_dim=8, intermediate_dim=8, max_seq_len=8, lora_rank=2,
        lora_alpha=2, lora_dropout=0.5,
    )  # fmt: skip
    assert attend_by_document(model)
    (batch,) = Packed(64, by_document=True)([{"tokens": [1, 2], "labels": [1, 2]}] * 2)
    seen = []
    model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    for mode in (True, False):
        model.train(mode)(batch.tokens, mask=batch.mask, input_pos=batch.positions)
    assert seen == [4, 2]


def test_other_masks_reach_torchtunes_attention(tiny_model: Path):
    from torchtune.models.llama3_2 import llama3_2

    sizes = {"vocab_size": 9, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
    model = llama3_2(**sizes, embed_dim=8, intermediate_dim=8, max_seq_len=8).eval()
    ids, seen = torch.arange(6)[None], Documents((4, 2))
    with torch.no_grad():
        causal, masked = model(ids), model(ids, mask=seen.mask(ids.device))
        assert attend_by_document(model)
        assert torch.equal(model(ids), causal)
        assert torch.equal(model(ids, mask=seen.mask(ids.device)), masked)
        torch.testing.assert_close(model(ids, mask=seen), masked, rtol=0, atol=1e-5)
