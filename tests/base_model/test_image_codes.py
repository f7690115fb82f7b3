import jax.numpy as jnp
import numpy as np
import pytest

from base_model.attention import MASKED
from base_model.image_codes import OUTSIDE, ImageCodes, allowed, drawn_next, drawn_so_far, hold_to

BEGIN, END, SOFT, FIRST = 5, 6, 7, 10
CODES = ImageCodes(begin=BEGIN, end=END, first=FIRST, count=4, length=3)
SIZE, A_LOT = 14, 50


def so_far(row):
    return np.asarray(drawn_so_far(jnp.array([row]), CODES))[0].tolist()


def may_follow(drawn, left=A_LOT):
    return set(np.flatnonzero(allowed(jnp.array(drawn), jnp.array(left), CODES, SIZE)).tolist())


def test_what_has_been_drawn_follows_from_the_tokens():
    assert so_far([1, BEGIN, 10, 13, 11, END, 2, BEGIN, 12]) == [-1, 0, 1, 2, 3, -1, -1, 0, 1]
    # A picture that is seen has brackets too, and soft tokens, of whatever number, between them.
    assert so_far([0, 0, BEGIN, SOFT, SOFT, SOFT, SOFT, SOFT, END, 4]) == [-1, -1, 0, 1, 2, 3, 4, 5, -1, -1]
    assert so_far([END, 1]) == [-1, -1]


def test_step_by_step_is_the_same():
    rows = np.random.default_rng(0).integers(3, SIZE, (40, 30))
    whole = np.asarray(drawn_so_far(jnp.asarray(rows), CODES))
    drawn = jnp.full(len(rows), OUTSIDE)
    for step in range(rows.shape[1]):
        drawn = drawn_next(drawn, jnp.asarray(rows[:, step]), CODES)
        np.testing.assert_array_equal(drawn, whole[:, step])


def test_inside_stand_codes_and_exactly_as_many_as_a_picture_has():
    for drawn in (0, 1, 2):
        assert may_follow(drawn) == {10, 11, 12, 13}
    assert may_follow(3) == {END}


def test_outside_stands_everything_but_codes_and_the_end():
    assert may_follow(OUTSIDE) == set(range(SIZE)) - {END, 10, 11, 12, 13}


@pytest.mark.parametrize(("left", "fits"), [(A_LOT, True), (6, True), (5, False), (1, False)])
def test_a_picture_begins_only_where_it_and_an_end_of_turn_fit(left, fits):
    assert (BEGIN in may_follow(OUTSIDE, left)) is fits


def test_the_rest_of_the_logits_is_untouched():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, SIZE)).astype(np.float32))
    held = np.asarray(hold_to(logits, jnp.array([OUTSIDE, 1]), jnp.array([A_LOT, 2]), CODES))
    free = np.array([[number in may_follow(drawn) for number in range(SIZE)] for drawn in (OUTSIDE, 1)])
    np.testing.assert_array_equal(held, np.where(free, logits, MASKED))
