"""The straight line between two sets of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo.config import PPOConfig
from ppo.interpolation import interpolated
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
    assert interpolated(START, END, 1.0) is END


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(BadInput, match="interpolation lies above 0 and is at most 1"):
        PPOConfig(output_dir="out", interpolation=share)
