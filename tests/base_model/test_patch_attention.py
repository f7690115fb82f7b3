import jax
import jax.numpy as jnp
import numpy as np
import pytest

from base_model.attention import WHOLE
from base_model.patch_attention import patch_attention


@pytest.mark.parametrize("patches", [7, WHOLE + 5])
def test_every_patch_sees_all_that_are_there(patches):
    rng = np.random.default_rng(patches)
    query, key, value = rng.normal(size=(3, 2, patches, 2, 4)).astype(np.float32)
    valid = np.arange(patches) < np.array([[patches], [patches - 3]])
    with jax.default_matmul_precision("highest"):
        mixed = patch_attention(jnp.array(query), jnp.array(key), jnp.array(value), jnp.array(valid), scale=0.7)
    for number, count in enumerate((patches, patches - 3)):
        scores = 0.7 * np.einsum("phk,shk->hps", query[number], key[number, :count])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        wanted = np.einsum("hps,shk->phk", weights, value[number, :count])
        np.testing.assert_allclose(mixed[number, :count], wanted[:count], atol=1e-5)
    assert jnp.isfinite(mixed).all()
