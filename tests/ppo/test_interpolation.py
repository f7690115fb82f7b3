"""The straight line between two sets of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo.config import PPOConfig
from ppo.interpolation import interpolated, largest_share
from training.errors import BadInput

START = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5]], jnp.bfloat16)}
END = {"a": jnp.array([3.0, -2.0]), "b": jnp.array([[1.5]], jnp.bfloat16)}


def test_it_goes_part_of_the_way():
    between = interpolated(START, END, 0.75)
    np.testing.assert_array_equal(between["a"], [2.5, -2.0])
    assert between["b"].dtype == jnp.bfloat16 and float(between["b"][0, 0]) == 1.25
    compiled = jax.jit(interpolated, static_argnums=2)(START, END, 0.75)
    jax.tree.map(np.testing.assert_array_equal, compiled, between)


def test_all_of_the_way_is_the_end_itself():
    assert interpolated(START, END, 1.0) is END and interpolated(START, END, 0.0) is START


@pytest.mark.parametrize(("limit", "share"), [(0.5, 0.5), (2.0, 1.0), (1.99, 0.984375), (1e-9, 0.0)])
def test_the_largest_share_for_which_something_holds(limit, share):
    assert largest_share(lambda s: 2 * s**2 <= limit) == share


@pytest.mark.parametrize("share", [-0.5, 1.01, float("nan")])
def test_a_share_of_diversity_that_is_none_is_refused(share):
    with pytest.raises(BadInput, match="result_diversity lies between 0 and 1"):
        PPOConfig(output_dir="out", result_diversity=share)
