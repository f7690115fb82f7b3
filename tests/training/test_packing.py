import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import BadInput
from training.packing import PackedStream, first_fit

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=150)


@given(lengths=LENGTHS, pictured=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_item_stands_in_one_row_that_holds_it(lengths, pictured):
    pictures = [length % 3 for length in lengths] if pictured else None
    rows = first_fit(lengths, 20) if pictures is None else first_fit(np.stack([lengths, pictures], 1), [20, 2])
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        assert 0 < sum(lengths[index] for index in row) <= 20
        assert pictures is None or sum(pictures[index] for index in row) <= 2


@given(lengths=LENGTHS.filter(lambda lengths: len(lengths) <= 60))
@settings(max_examples=40, deadline=None)
def test_no_item_opens_a_row_while_an_earlier_one_has_room(lengths):
    rows = first_fit(lengths, 20)
    for index, length in enumerate(lengths):
        own = next(number for number, row in enumerate(rows) if index in row)
        for earlier in rows[:own]:
            assert sum(lengths[other] for other in earlier if other < index) + length > 20


def test_first_fit_golden():
    assert first_fit([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert first_fit([[2, 2], [2, 1], [2, 0]], [10, 2]) == [[0, 2], [1]]


def test_what_fits_no_row_is_named():
    with pytest.raises(BadInput, match="example 1 has 11 tokens and cannot be packed into rows of 10"):
        first_fit([3, 11], 10)
    with pytest.raises(BadInput, match="example 1 has 3 pictures and cannot be packed into rows of 2"):
        first_fit([[3, 0], [3, 3]], [10, 2])
    with pytest.raises(BadInput, match="example 1 has 11 tokens"):  # its own number, not that in the shuffled order
        PackedStream([3, 11, 4, 5], 10, seed=0)
    with pytest.raises(BadInput, match="example 2 has 3 pictures"):
        PackedStream([[3, 0], [3, 1], [3, 3], [3, 0]], [10, 2], seed=0)
    with pytest.raises(BadInput, match="no example"):
        PackedStream([], 10, seed=0)


@pytest.fixture
def stream():
    """A stream of 40 examples, new for each test."""
    lengths = np.random.default_rng(0).integers(1, 20, 40).tolist()
    return lambda seed=3: PackedStream(lengths, 20, seed=seed)


def epochs(stream, count):
    """The rows of the first epochs, each of which ends when every example has been seen."""
    found, number = [], 0
    for _ in range(count):
        rows, seen = [], 0
        while seen < 40:
            rows += stream.rows(number, 1)
            seen, number = sum(map(len, rows)), number + 1
        found.append(rows)
    return found


def test_every_epoch_has_each_example_once_in_another_order(stream):
    found = epochs(stream(), 4)
    for rows in found:
        assert sorted(index for row in rows for index in row) == list(range(40))
    assert len({str(rows) for rows in found}) == 4
    assert len(found[0]) == stream().rows_per_epoch


@given(asked=st.lists(st.tuples(st.integers(0, 120), st.integers(1, 30)), max_size=4), first=st.integers(0, 120))
@settings(max_examples=40, deadline=None)
def test_rows_do_not_depend_on_what_was_asked_before(asked, first):
    lengths = np.random.default_rng(0).integers(1, 20, 40).tolist()
    used, fresh = (PackedStream(lengths, 20, seed=3) for _ in range(2))
    for start, count in asked:
        used.rows(start, count)
    assert used.rows(first, 5) == fresh.rows(first, 5)


def test_rows_asked_together_are_those_asked_one_by_one(stream):
    together = stream().rows(0, 100)
    one_by_one = stream()
    assert [one_by_one.rows(number, 1)[0] for number in range(100)] == together
    assert stream(seed=4).rows(0, 100) != together
