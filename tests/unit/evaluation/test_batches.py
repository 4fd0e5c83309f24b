"""entrypoint.evaluation.batches: which sequences go through the model together."""

from hypothesis import given
from hypothesis import strategies as st

from entrypoint.evaluation.batches import Limits, Scored, cheapest, common, cut


def choice(context: list[int], *ending: int) -> Scored:
    ids = (*context, *ending)
    return Scored(ids=ids, targets=tuple(range(len(context), len(ids))))


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=40), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(40, 200),
)
def test_every_sequence_is_in_one_batch_within_the_limits(
    rows: list[list[int]], most: int, tokens: int
):
    sequences = [choice(row[:-1], row[-1]) for row in rows]
    plan = cheapest(sequences, Limits(rows=most, tokens=tokens))
    assert sorted(row for batch in plan for row in batch.rows) == list(range(len(rows)))
    for batch in plan:
        ids = [sequences[row].ids for row in batch.rows]
        assert len(ids) <= most
        assert len(ids) == 1 or len(ids) * max(map(len, ids)) <= tokens
        assert len({one[: batch.shared] for one in ids}) == 1
        # the token before the first predicted one is each row's own
        assert all(batch.shared < sequences[row].targets[0] for row in batch.rows)


def test_choices_of_one_question_share_it():
    questions = [list(range(start, start + 50)) for start in (0, 100, 200)]
    sequences = [choice(question, 7, answer) for question in questions for answer in range(4)]
    plan = cheapest(sequences, Limits(rows=64))
    assert [len(batch.rows) for batch in plan] == [4, 4, 4]
    assert {batch.shared for batch in plan} == {49}
    assert len(cheapest(sequences, Limits(rows=64), share=False)) == 1


def test_rows_with_one_beginning_share_it_across_questions():
    beginning = list(range(100))
    sequences = [choice([*beginning, 200 + row], 5) for row in range(16)]
    (batch,) = cheapest(sequences, Limits(rows=64))
    assert batch.shared == 100
    assert batch.cost < 16 * 20


def test_too_little_memory_cuts_batches():
    sequences = [choice([1] * 9, 2) for _ in range(10)]
    limits = Limits(rows=64, room=40, token_bytes=1)
    assert [len(batch.rows) for batch in cut(range(10), sequences, limits, share=False)] == [
        4,
        4,
        2,
    ]
    growing = Limits(rows=64, room=40, token_bytes=1, new_tokens=10)
    assert [len(one.rows) for one in cut(range(4), sequences, growing, share=False)] == [2, 2]


def test_the_common_beginning_of_sequences_is_found():
    assert common([(1, 2, 3), (1, 2), (1, 2, 4)]) == 2
    assert common([(1,), (2,)]) == 0
