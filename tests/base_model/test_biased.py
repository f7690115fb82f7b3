import jax.numpy as jnp
import numpy as np
from flax import nnx

from base_model.biased import LayerNorm, Linear


def test_a_layer_norm_equals_its_definition():
    rng = np.random.default_rng(0)
    norm = LayerNorm(6, epsilon=0.1)
    norm.weight[...], norm.bias[...] = jnp.arange(6.0), -jnp.arange(6.0)
    x = rng.normal(3, 2, (4, 6))
    wanted = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 0.1) * np.arange(6) - np.arange(6)
    np.testing.assert_allclose(norm(jnp.array(x)), wanted, atol=1e-5)
    assert norm(jnp.ones((2, 6), jnp.bfloat16)).dtype == jnp.float32


def test_a_linear_layer_adds_its_bias_to_every_row():
    layer = Linear((3, 2), (None, None), dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.array([1.0, 2.0])
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(jnp.array(x)), x @ np.asarray(layer.kernel[...]) + [1, 2], atol=1e-5)
