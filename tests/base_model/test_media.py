from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from base_model.media import Media, blanked, count, in_places, room, stack


class Patches(NamedTuple):
    """Inputs of variable size, as a tower of patches has them: -1 is no position."""

    pixels: np.ndarray
    positions: np.ndarray


def patches(number, fill=1.0):
    return Patches(np.full((number, 3), fill, np.float32), np.stack([np.arange(number)] * 2, 1).astype(np.int32))


def sound(frames):
    return {"mel": np.ones((frames, 4), np.float32), "mask": np.ones(frames, bool)}


ROWS = [
    [Media((patches(2), patches(5)), ()), Media((patches(1),), (sound(3),))],
    [Media((), ())],
    [Media((), (sound(7),))],
]


def test_inputs_of_any_size_share_arrays_and_blanks_are_no_position():
    images, sounds = stack(ROWS)
    assert images.pixels.shape == (3, 3, 5, 3) and images.positions.dtype == np.int32
    assert [[(slot[:, 0] >= 0).sum() for slot in row] for row in images.positions] == [[2, 5, 1], [0] * 3, [0] * 3]
    assert images.pixels.sum() == 3 * (2 + 5 + 1)
    np.testing.assert_array_equal(images.positions[0, 1], patches(5).positions)
    assert sounds["mel"].shape == (3, 1, 7, 4)
    assert sounds["mask"].sum(2).tolist() == [[3], [0], [7]]


def test_room_is_that_of_the_fullest_row_and_the_largest_input():
    images, sounds = room(ROWS)
    assert (images.pixels.shape, sounds["mask"].shape) == ((3, 5, 3), (1, 7))
    assert room(ROWS[1:]).images is None and room([]) == Media()
    wide = room(ROWS[:1], slots=Media(4, 2))
    assert (wide.images.pixels.shape, wide.sounds["mel"].shape) == ((4, 5, 3), (2, 3, 4))
    assert room([[Media((patches(1),), ())]], slots=Media(2, 2)).sounds is None
    both = room(ROWS[2:], at_least=wide)
    assert (both.images.pixels.shape, both.sounds["mel"].shape) == ((4, 5, 3), (2, 7, 4))
    assert stack(ROWS[1:2], both).images.pixels.shape == (1, 4, 5, 3)
    assert count(ROWS[0]) == (3, 1)


def test_what_is_blanked_keeps_its_places():
    media = blanked(stack(ROWS))
    assert not media.images.pixels.any() and not media.sounds["mel"].any()
    np.testing.assert_array_equal(media.images.positions, stack(ROWS).images.positions)
    assert media.sounds["mask"].sum() == 10
    assert not blanked(Media((np.ones((2, 2, 3), np.uint8),), ())).images[0].any()


def naive_places(soft, valid, places):
    """Token by token."""
    found = np.zeros((*places.shape, soft.shape[-1]), np.float32)
    for row in range(len(places)):
        left = [soft[row, slot] for slot in range(soft.shape[1]) if valid[row, slot]]
        for token in np.flatnonzero(places[row]):
            found[row, token] = left.pop(0) if left else np.nan
    return found


@pytest.mark.parametrize("constant", [False, True])
def test_valid_soft_tokens_take_the_places_in_order_and_a_place_without_one_is_nan(constant):
    rng = np.random.default_rng(0)
    soft, places = rng.normal(size=(6, 8, 2)).astype(np.float32), rng.random((6, 11)) < 0.4
    places[0] = True
    valid = np.ones((6, 8), bool) if constant else rng.random((6, 8)) < 0.6
    valid[1] = constant
    found = jax.jit(in_places)(soft, None if constant else jnp.array(valid), jnp.array(places))
    expected = naive_places(soft, valid, places)
    np.testing.assert_array_equal(np.asarray(found)[places], expected[places])
    assert np.isnan(expected).any() and np.isfinite(expected[places]).any()


def test_a_program_without_the_pictures_of_its_tokens_gives_no_numbers(structure, tiny_model, make_example):
    from flax import nnx

    from base_model.batch import pack

    batch = pack([[make_example("hi", pictures=[0])], [make_example("hi")]], 24)
    embed = jax.jit(lambda media: nnx.merge(structure, tiny_model.params).embed(jnp.asarray(batch.tokens), media))
    is_soft = batch.tokens == tiny_model.tokenizer.control("<image_soft_token>")
    assert np.isfinite(embed(batch.media)).all() and is_soft.sum() == 4
    np.testing.assert_array_equal(np.isnan(embed(Media())).all(2), is_soft)
