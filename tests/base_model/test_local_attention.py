import jax
import jax.numpy as jnp
import numpy as np
import pytest

from base_model.local_attention import local_attention, sinusoids


def naive(query, key, value, relative, valid, cap):
    """Frame by frame and head by head, in float64."""
    window, out = len(relative), np.zeros(query.shape)
    for n, i, head in np.ndindex(query.shape[:3]):
        near = [j for j in range(max(0, i - window + 1), i + 1) if valid[n, j]]
        if near:
            scores = [query[n, i, head] @ (key[n, j, head] + relative[i - j, head]) for j in near]
            weights = np.exp(cap * np.tanh(np.array(scores) / cap))
            out[n, i, head] = weights / weights.sum() @ value[n, near, head]
    return out


@pytest.fixture
def draw():
    rng = np.random.default_rng(0)
    return lambda *shape: rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("length", "window"), [(1, 4), (4, 4), (11, 4), (12, 3), (5, 9), (7, 1)])
def test_blocks_equal_a_sum_over_frames(draw, length, window):
    query, key, value = (draw(2, length, 2, 3) for _ in range(3))
    relative, valid = draw(window, 2, 3), draw(2, length) < 0.7
    found = jax.jit(lambda *x: local_attention(*x, cap=2.0))(query, key, value, relative, valid)
    expected = naive(query, key, value, relative, valid, 2.0)
    np.testing.assert_allclose(np.asarray(found)[valid], expected[valid], atol=1e-5)
    eager = local_attention(*map(jnp.asarray, (query, key, value, relative, valid)), cap=2.0)
    np.testing.assert_allclose(eager, found, atol=1e-6)


def test_what_is_not_there_changes_nothing_and_is_finite(draw):
    query, key, value = (jnp.asarray(draw(1, 9, 2, 3)) for _ in range(3))
    relative, valid = jnp.asarray(draw(4, 2, 3)), jnp.array([[0, 0, 0, 0, 0, 1, 0, 1, 1]], bool)

    @jax.jit
    def mixed(query, key, value):
        return local_attention(query, key, value, relative, valid, cap=5.0)

    def total(*inputs):
        return jnp.where(valid[..., None, None], mixed(*inputs), 0.0).sum()

    there = mixed(query, key, value)
    changed = mixed(*(jnp.where(valid[..., None, None], x, 100.0) for x in (query, key, value)))
    np.testing.assert_array_equal(there[valid], changed[valid])
    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(query, key, value)
    assert all(jnp.isfinite(x).all() for x in (changed, *gradients))
    assert all(gradient[valid].any() and not gradient[~valid].any() for gradient in gradients)


def test_distances_are_sines_beside_cosines():
    found = sinusoids(3, 6)
    expected = [[f(d * w) for f in (np.sin, np.cos) for w in (1, 1e-2, 1e-4)] for d in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-7)
