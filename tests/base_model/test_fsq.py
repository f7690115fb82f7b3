import jax
import jax.numpy as jnp
import numpy as np
import pytest

from base_model import fsq

LEVELS = (8, 5, 2)


def test_numbers_and_points_are_one_to_one():
    ids = np.arange(80, dtype=np.int32)
    points = fsq.from_ids(jnp.asarray(ids), LEVELS)
    assert len(np.unique(np.asarray(points), axis=0)) == 80
    assert np.abs(points).max() <= 1
    np.testing.assert_array_equal(fsq.to_ids(points, LEVELS), ids)


def test_the_first_level_counts_fastest():
    np.testing.assert_allclose(fsq.from_ids(jnp.array([0, 1, 8, 40]), LEVELS), [
        [-1, -1, -1], [-0.75, -1, -1], [-1, -0.5, -1], [-1, -1, 0],
    ])  # fmt: skip


def test_quantised_numbers_are_the_nearest_points():
    z = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * 2
    found = np.asarray(fsq.quantise(jnp.asarray(z), LEVELS))
    for axis, level in enumerate(LEVELS):
        # An independent reference: squash so that 0 stays 0 and the ends are just reached, then take the nearest value.
        half, offset = (level - 1) * 1.001 / 2, 0.0 if level % 2 else 0.5
        squashed = np.tanh(z[:, axis] + np.arctanh(offset / half)) * half - offset
        values = np.arange(level) - level // 2
        nearest = values[np.abs(squashed[:, None] - values).argmin(1)]
        np.testing.assert_allclose(found[:, axis], nearest / (level // 2), atol=1e-6)
        assert set(np.unique(nearest)) == set(values)


@pytest.mark.parametrize("level", [2, 3, 5, 8])
def test_nothing_is_the_middle_and_gradients_pass_the_rounding(level):
    assert fsq.quantise(jnp.zeros(1), (level,)) == 0
    gradient = jax.grad(lambda z: fsq.quantise(z, (level,)).sum())(jnp.array([0.3]))
    eps = 1e-3
    half, offset = (level - 1) * 1.001 / 2, 0.0 if level % 2 else 0.5
    squash = lambda z: (np.tanh(z + np.arctanh(offset / half)) * half - offset) / (level // 2)  # noqa: E731
    np.testing.assert_allclose(gradient, (squash(0.3 + eps) - squash(0.3 - eps)) / (2 * eps), rtol=1e-3)
