"""A larger model that begins with what a smaller one knows."""

import jax.numpy as jnp
import numpy as np
import pytest

from base_model.growth import grown
from training.errors import BadInput

TRAINED = {"embedding": jnp.arange(6.0).reshape(3, 2), "blocks": {"0": {"kernel": jnp.ones((2, 4))}}}


def fresh(**others):
    return {"embedding": jnp.full((5, 2), -1.0), "blocks": {"0": {"kernel": jnp.zeros((2, 4), jnp.bfloat16)}}, **others}


def test_what_was_trained_is_taken_and_the_rest_is_fresh():
    sounds = jnp.full((3,), 7.0)
    params = grown(fresh(audio={"kernel": sounds}), TRAINED)
    np.testing.assert_array_equal(params["embedding"], [[0, 1], [2, 3], [4, 5], [-1, -1], [-1, -1]])
    np.testing.assert_array_equal(params["blocks"]["0"]["kernel"], np.ones((2, 4)))
    assert params["blocks"]["0"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(params["audio"]["kernel"], sounds)


@pytest.mark.parametrize("shape", [(2, 2), (5, 3)])
def test_what_does_not_fit_is_named(shape):
    with pytest.raises(BadInput, match=r"go on from has embedding of shape \(3, 2\), and the larger one needs"):
        grown({**fresh(), "embedding": jnp.zeros(shape)}, TRAINED)


def test_nothing_that_was_trained_is_left_out():
    with pytest.raises(BadInput, match=r"has vision.kernel, for which the larger one has no place"):
        grown(fresh(), {**TRAINED, "vision": {"kernel": jnp.zeros(2)}})
