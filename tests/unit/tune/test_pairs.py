"""entrypoint.tune.pairs: preference rows as the input of one forward pass."""

import functools

import pytest

from entrypoint.tune import compat

compat.apply()

from torchtune.data import padded_collate_dpo  # noqa: E402

from entrypoint.tune.batches import Packed, silent  # noqa: E402
from entrypoint.tune.packing import Documents  # noqa: E402
from entrypoint.tune.pairs import PackedPairs, PaddedPairs  # noqa: E402


def row(chosen: list[int], rejected: list[int], **more: object) -> dict:
    """Whose first token of each answer is the prompt."""
    return {
        "chosen_input_ids": chosen, "chosen_labels": [-100, *chosen[1:]],
        "rejected_input_ids": rejected, "rejected_labels": [-100, *rejected[1:]], **more,
    }  # fmt: skip


LONG = row([1, 2, 3], [1, 4, 5, 6])
SHORT = row([7, 8], [7, 9])
COLLATE = functools.partial(padded_collate_dpo, padding_idx=0, ignore_idx=-100)


def test_packed_answers_lie_end_to_end_and_pairs_stay_together():
    layout = PackedPairs(Packed(8, by_document=True))
    first, second = layout([LONG, SHORT])
    assert first.tokens.tolist() == [[1, 2, 3, 1, 4, 5, 6]]
    assert first.labels.tolist() == [[2, 3, -100, 4, 5, 6, -100]]
    assert first.answers is not None
    assert first.answers.tolist() == [[0, 0, 0, 1, 1, 1, 1]]
    # the prompt is computed once for both answers
    assert first.mask == Documents((3, 4), twins=(0, 1, 2, 0, 4, 5, 6))
    assert (first.pairs, first.real, first.trained) == (1, 7, 5)
    assert second.tokens.tolist() == [[7, 8, 7, 9]]
    (both,) = PackedPairs(Packed(11, by_document=True))([LONG, SHORT])
    assert both.answers is not None
    assert both.answers.tolist() == [[0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3]]
    assert both.pairs == 2


def test_padded_answers_lie_as_torchtune_has_them():
    (batch,) = PaddedPairs(2, COLLATE)([SHORT, LONG])
    assert batch.tokens.tolist() == [[7, 8, 0, 0], [1, 2, 3, 0], [7, 9, 0, 0], [1, 4, 5, 6]]
    assert batch.labels[0].tolist() == [8, -100, -100, -100]
    assert batch.answers is not None
    assert batch.answers[:, 0].tolist() == [0, 2, 1, 3]
    assert (batch.pairs, batch.real, batch.trained) == (2, 11, 7)


def test_rows_of_like_length_are_padded_together():
    rows = [LONG, SHORT, LONG, SHORT]
    assert PaddedPairs(2, COLLATE).groups(rows) == [[1, 3], [0, 2]]


@pytest.mark.parametrize("layout", [PackedPairs(Packed(99, True)), PaddedPairs(2, COLLATE)])
def test_what_the_reference_said_goes_along(layout: PackedPairs | PaddedPairs):
    known = [row([1, 2], [1, 3], reference=(-1.0, -2.0)), row([1, 2], [1, 3], reference=(0.5, 3.0))]
    (batch,) = layout(known)
    assert batch.reference is not None
    assert batch.reference.tolist() == [[-1, -2], [0.5, 3]]
    assert layout([LONG])[0].reference is None
    assert silent(batch).pairs == 0
