import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from base_model.attention import Attention, Context, LayerCache, Places, attend, attention_mask
from base_model.cache import Ring, attended, key_places
from base_model.config import LayerSpec, ModelConfig

LENGTH = 9
jitted_mask = jax.jit(attention_mask, static_argnames="window")


def runs(rng, highest):
    """A row of numbers in runs, some of them 0, such as segments or pictures are."""
    row, number = [], 0
    while len(row) < LENGTH:
        number += 1
        row += [number if rng.random() < 0.7 and number <= highest else 0] * rng.integers(1, 5)
    return row[:LENGTH]


@given(seed=st.integers(0, 2**32), window=st.sampled_from([None, 1, 2, 4]), pictured=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_mask_equals_a_loop_over_its_definition(seed, window, pictured):
    rng = np.random.default_rng(seed)
    segments, images = (np.array([runs(rng, 4) for _ in range(2)]) for _ in range(2))
    expected = np.zeros((2, LENGTH, LENGTH), bool)
    for row, query, key in np.ndindex(expected.shape):
        same_image = pictured and images[row, query] == images[row, key] != 0
        in_window = window is None or query - key < window
        same_segment = segments[row, query] == segments[row, key] != 0
        expected[row, query, key] = (key <= query or same_image) and in_window and same_segment
    slots = jnp.arange(LENGTH)
    places = Places(slots, jnp.array(segments), jnp.array(images) if pictured else None)
    np.testing.assert_array_equal(jitted_mask(places, places, window=window), expected)


def test_queries_that_continue_a_cache_see_what_was_written_before_them():
    queries = Places(jnp.array([2, 3]), jnp.array([[1, 1]]))
    mask = attention_mask(queries, Places(jnp.arange(6), jnp.array([[0, 1, 1, 1, 0, 0]])), window=None)
    np.testing.assert_array_equal(mask[0], [[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]])


def naive_attention(layer, x, positions, mask):
    """Head by head and query by query, in float64."""
    spec, config = layer.spec, layer.config
    weights = {name: np.asarray(getattr(layer, name)[...], np.float64) for name in ("query", "key", "value", "out")}

    def normed(vector, norm):
        vector = vector / np.sqrt(np.mean(vector**2) + config.norm_epsilon)
        return vector if norm is None else vector * (np.asarray(norm.weight[...]) + config.norm_offset)

    def turned(vector, position):
        half = spec.head_dim // 2
        result = vector.copy()
        for i in range(int(spec.rope_fraction * half)):
            angle = position / spec.rope_scale * spec.rope_theta ** (-2 * i / spec.head_dim)
            result[i] = vector[i] * np.cos(angle) - vector[half + i] * np.sin(angle)
            result[half + i] = vector[half + i] * np.cos(angle) + vector[i] * np.sin(angle)
        return result

    mixed = np.zeros((*x.shape[:2], spec.heads * spec.head_dim))
    for row, query_place, head in np.ndindex(*x.shape[:2], spec.heads):
        part = slice(head * spec.head_dim, (head + 1) * spec.head_dim)
        shared = head // (spec.heads // spec.kv_heads)
        shared_part = slice(shared * spec.head_dim, (shared + 1) * spec.head_dim)
        query = normed((x[row, query_place] @ weights["query"])[part], layer.query_norm)
        query = turned(query, positions[row, query_place])
        seen = np.flatnonzero(mask[row, query_place])
        scores, values = [], []
        for place in seen:
            key = normed((x[row, place] @ weights["key"])[shared_part], layer.key_norm)
            scores.append(query @ turned(key, positions[row, place]) * config.query_scale)
            value = (x[row, place] @ weights["value"])[shared_part]
            values.append(normed(value, None) if config.value_norm else value)
        if len(seen):
            share = np.exp(np.array(scores) - max(scores))
            mixed[row, query_place, part] = share / share.sum() @ np.array(values)
    return mixed @ weights["out"]


MULTI_QUERY = LayerSpec(window=3, heads=4, kv_heads=1, head_dim=6, mlp_dim=8)


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (MULTI_QUERY, {}),
        (replace(MULTI_QUERY, kv_heads=2, window=None, rope_scale=8.0), {"value_norm": False, "norm_offset": 1.0}),
        (replace(MULTI_QUERY, kv_heads=4, rope_fraction=0.34, rope_theta=1e6), {"query_scale": 0.3}),
    ],
    ids=["multi-query", "grouped, Gemma 3", "multi-head, proportional RoPE"],
)
def test_attention_equals_a_naive_one(spec, changes):
    config = ModelConfig(vocab_size=8, embed_dim=10, layers=(spec,), **changes)
    layer = Attention(spec, config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    for norm in (layer.query_norm, layer.key_norm):
        norm.weight[...] = jnp.asarray(rng.normal(size=6), jnp.float32)
    x, positions = rng.normal(size=(2, 7, 10)), np.array([[0, 1, 2, 3, 0, 1, 2], [0, 0, 0, 1, 2, 3, 4]])
    places = Places(jnp.arange(7), jnp.array([[1, 1, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 1, 1]]))
    mask = attention_mask(places, places, window=spec.window)
    run = jax.jit(lambda x: layer(x, Context(jnp.array(positions), places))[0])
    result, expected = run(jnp.asarray(x, jnp.float32)), naive_attention(layer, x, positions, np.asarray(mask))
    seeing = np.asarray(mask).any(-1)
    np.testing.assert_allclose(np.asarray(result)[seeing], expected[seeing], atol=2e-5)
    assert np.isfinite(result).all()


def test_a_query_that_sees_nothing_gives_no_nan():
    config = ModelConfig(vocab_size=8, embed_dim=10, layers=(MULTI_QUERY,))
    layer = Attention(MULTI_QUERY, config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    padding = Places(jnp.arange(2), jnp.zeros((1, 2), int))
    context = Context(jnp.zeros((1, 2), int), padding)
    total = lambda x: layer(x, context)[0].sum()  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.ones((1, 2, 10)))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(("window", "pictured"), [(None, True), (5, True), (5, False), (2, False)])
def test_blocks_of_queries_give_what_all_at_once_do(window, pictured):
    rng = np.random.default_rng(0)
    draw = lambda heads, length: jnp.asarray(rng.normal(size=(2, length, heads, 6)), jnp.float32)  # noqa: E731
    query, cache = draw(4, LENGTH), LayerCache(draw(2, LENGTH), draw(2, LENGTH))
    segments, images = (jnp.array([runs(rng, 4) for _ in range(2)]) for _ in range(2))
    places = Places(jnp.arange(LENGTH), segments, images if pictured else None)
    weight = jnp.where((segments > 0)[..., None, None], draw(4, LENGTH), 0)

    def run(whole, block):
        def total(query, cache):
            mixed = attend(query, cache, places, places, window=window, scale=0.4, whole=whole, block=block)
            # What padding sees is anything.
            return (mixed * weight).sum(), jnp.where((segments > 0)[..., None, None], mixed, 0)

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(query, cache)

    expected = run(LENGTH, 1)
    for block in (1, 4, 3):  # 4 leaves the last block short
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(run(LENGTH - 1, block)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_a_loop_that_reads_one_token_after_another_copies_no_ring(kv_heads):
    rows, slots, size = 3, 16, 8
    rings = Ring(jnp.zeros((rows * kv_heads, size, slots)), jnp.zeros((rows * kv_heads, slots, size)))

    @jax.jit
    def run(query, ring):
        def step(number, carry):
            query, ring = carry
            seen = attended(ring, LayerCache(query[:, :, :kv_heads], query[:, :, -kv_heads:]), number)
            queries = Places(number[None], jnp.ones((rows, 1), int))
            keys = key_places(jnp.ones((rows, slots), int), queries, slots)
            return attend(query, seen, queries, keys, window=None, scale=0.5), seen

        return jax.lax.fori_loop(0, slots, step, (query, ring))

    compiled = run.lower(jnp.ones((rows, 1, 4, size)), rings).compile()
    inside = compiled.as_text().split("ENTRY")[0]
    assert "dynamic-update-slice(" in inside
    ring = re.compile(rf" = f32\[[0-9,]*({slots}(,1)?,{size}|{size},{slots})[0-9,]*\]\S* copy\(")
    copied = [line for line in inside.splitlines() if ring.search(line)]
    assert not copied, "\n".join(copied)
