"""entrypoint.tune.batches: which rows make a step, and their tensors."""

import functools

import pytest

from entrypoint.tune import compat

compat.apply()

from torchtune.data import padded_collate_sft  # noqa: E402

from entrypoint.tune.batches import Packed, Padded, Schedule, silent  # noqa: E402
from entrypoint.tune.packing import Documents  # noqa: E402

ROWS = [
    {"tokens": [1, 2, 3], "labels": [-100, 2, 3]},
    {"tokens": [4, 5], "labels": [4, 5]},
    {"tokens": [6, 7, 8, 9], "labels": [-100, -100, -100, 9]},
]


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_order_is_that_of_torchtunes_recipes(epoch: int):
    from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

    sampler = StatefulDistributedSampler(range(50), num_replicas=1, rank=0, shuffle=True, seed=0)
    sampler.set_epoch(epoch)
    schedule = Schedule(rows=50, rows_per_step=4, shuffle=True, max_steps=None)
    assert schedule.order(epoch).tolist() == list(sampler)


def test_without_shuffling_rows_come_as_they_are():
    schedule = Schedule(rows=5, rows_per_step=2, shuffle=False, max_steps=None)
    assert schedule.order(1).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("bound", "steps"), [(None, 3), (2, 2), (9, 3)])
def test_an_epoch_has_whole_steps(bound: int | None, steps: int):
    schedule = Schedule(rows=14, rows_per_step=4, shuffle=False, max_steps=bound)
    assert (schedule.steps, schedule.rows_per_epoch) == (steps, 4 * steps)


def test_padded_rows_lie_side_by_side():
    collate = functools.partial(padded_collate_sft, padding_idx=0, ignore_idx=-100)
    first, second = Padded(2, collate)(ROWS)
    assert first.tokens.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert first.labels.tolist() == [[2, 3, -100], [5, -100, -100]]
    assert (first.real, first.trained, first.mask, first.positions) == (5, 3, None, None)
    assert second.tokens.tolist() == [[6, 7, 8, 9]]


def test_packed_rows_lie_end_to_end():
    first, second = Packed(5, by_document=True)(ROWS)
    assert first.tokens.tolist() == [[1, 2, 3, 4, 5]]
    # no label crosses from one row to the next
    assert first.labels.tolist() == [[2, 3, -100, 5, -100]]
    assert first.positions is not None
    assert first.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert first.mask == Documents((3, 2))
    assert (first.real, first.trained) == (5, 3)
    assert (second.real, second.trained) == (4, 1)
    assert Packed(5, by_document=False)(ROWS)[0].mask.shape == (1, 5, 5)


def test_a_silent_batch_has_the_shape_and_no_label():
    (batch,) = Packed(99, by_document=True)(ROWS)
    quiet = silent(batch)
    assert quiet.tokens.shape == batch.tokens.shape
    assert set(quiet.labels.flatten().tolist()) == {-100}
    assert (quiet.real, quiet.trained) == (0, 0)
