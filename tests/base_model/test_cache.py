import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from base_model.batch import cuts_of
from base_model.cache import LayerCache, Places, Ring, attended, extended, key_places, moved, start
from base_model.config import LayerSpec, ModelConfig

LOCAL = LayerSpec(window=5, heads=1, kv_heads=1, head_dim=2, mlp_dim=1)
GLOBAL = replace(LOCAL, window=None)
# A local layer, a global one, one that borrows from the first with a wider window, and one that borrows the second's.
LAYERS = (LOCAL, GLOBAL, replace(LOCAL, window=7, kv_source=0), replace(GLOBAL, kv_source=1))
CONFIG = ModelConfig(vocab_size=8, embed_dim=4, layers=LAYERS)
ROWS, LENGTH = 2, 24


def tokens(first, end):
    """Keys that say their own number, values that say it and the row."""
    number = jnp.arange(first, end, dtype=jnp.float32)[None, :, None, None] * jnp.ones((ROWS, 1, 1, 2))
    return LayerCache(number, number + 100 * jnp.arange(1, ROWS + 1)[:, None, None, None])


def segments(first, end):
    """The second row begins with three places of padding."""
    return jnp.array([[1] * LENGTH, [0] * 3 + [1] * (LENGTH - 3)])[:, first:end]


def unrolled(layer):
    """Slots one after another, as numpy arrays."""
    if isinstance(layer, Ring):
        layer = LayerCache(jnp.moveaxis(layer.keys, 2, 1)[:, :, None], layer.values[:, :, None])
    return LayerCache(*map(np.asarray, layer))


def read(cache, first, end):
    """Reads tokens on, and what each layer attended to with its places."""
    new, queries = tokens(first, end), Places(jnp.arange(first, end), segments(first, end))
    seen = [None if ring is None else attended(ring, new, jnp.int32(first)) for ring in cache.layers]
    seen = [layer if spec.kv_source is None else seen[spec.kv_source] for spec, layer in zip(LAYERS, seen, strict=True)]
    places = [key_places(cache.segments, queries, layer.values.shape[1]) for layer in seen]
    return extended(cache, seen, segments(first, end)), seen, places


def begun(width):
    """A cache of the first tokens."""
    seen = [tokens(0, width)] * len(LAYERS)
    return start(CONFIG, seen, segments(0, width), LENGTH)


@pytest.mark.parametrize("cuts", [(4, 5, 6, 7, 8, 9), (3, 9, 20, 21, 24), (16, 17, 19, 24), (1, 2, 3)], ids=str)
def test_every_query_finds_the_keys_in_its_window_whatever_the_parts(cuts):
    cache = begun(cuts[0])
    for first, end in itertools.pairwise(cuts):
        cache, seen, places = read(cache, first, end)
        for spec, layer, place in zip(LAYERS, seen, places, strict=True):
            there = np.asarray(place.segments) > 0
            for query, row in itertools.product(range(first, end), range(ROWS)):
                nearest = 0 if spec.window is None else max(0, query - spec.window + 1)
                wanted = [n for n in range(nearest, query + 1) if segments(n, n + 1)[row, 0]]
                distance = query - np.asarray(place.slots)
                mine = there[row] & (distance >= 0) & (distance < (spec.window or LENGTH))
                keys, values = (x[row, mine, 0, 1] for x in unrolled(layer))
                assert sorted(keys) == wanted
                np.testing.assert_array_equal(keys, np.asarray(place.slots)[mine])
                np.testing.assert_array_equal(values, np.asarray(place.slots)[mine] + 100 * (row + 1))


def test_a_ring_is_as_long_as_the_widest_window_of_those_who_read_it():
    layers = begun(4).layers
    assert [None if ring is None else ring.values.shape[1] for ring in layers] == [7, LENGTH, None, None]


def test_rows_that_began_later_read_on_as_they_would_have():
    for width, later in ((4, 4), (4, 9), (12, 30), (20, 45)):
        cache = moved(begun(width), jnp.int32(later))
        new, queries = tokens(width, width + 1), Places(jnp.array([later]), segments(width, width + 1))
        for ring in cache.layers[:2]:
            seen = attended(ring, new, cache.length)
            place = key_places(cache.segments, queries, seen.values.shape[1])
            there = np.asarray(place.segments)[0] > 0
            distance = later - np.asarray(place.slots)
            found = unrolled(seen).keys[0, there, 0, 0]
            np.testing.assert_array_equal(found, width - distance[there])
            assert len(found) == min(width + 1, ring.values.shape[1])


def test_pictures_in_what_is_read_on_are_numbered_and_those_before_are_not():
    cache = begun(6)
    queries = Places(jnp.arange(6, 9), segments(6, 9), jnp.array([[1, 1, 0], [0, 2, 2]]))
    for ring in cache.layers[:2]:
        images = np.asarray(key_places(cache.segments, queries, ring.values.shape[1] + 3).images)
        assert not images[:, :-3].any()
        np.testing.assert_array_equal(images[:, -3:], queries.images)


def test_prompts_are_cut_where_no_picture_is():
    soft = np.zeros((2, 40), int)
    assert cuts_of(soft, (7,), at_once=16) == (16, 32)
    assert cuts_of(soft[:, :16], (7,), at_once=16) == ()
    soft[0, 14:20], soft[1, 30:36] = 7, 7
    assert cuts_of(soft, (7,), at_once=16) == (14, 30)  # the places before and behind a picture are as good as any
    soft[1, 12:20] = 7
    assert cuts_of(soft, (7,), at_once=16) == (12, 28)
    soft[1, :20] = 7
    assert cuts_of(soft, (7,), at_once=16) == (20, 36)  # nowhere within reach: the first place beyond
    soft[1] = 7
    assert cuts_of(soft, (7,), at_once=16) == ()


def test_a_cache_is_a_tree_that_jit_takes():
    assert len(jax.tree.leaves(begun(4))) == 2 * 2 + 2
