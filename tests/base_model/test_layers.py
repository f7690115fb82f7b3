from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from base_model.layers import GatedMLP, RMSNorm, matmul, rms_norm, rotate

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_rms_norm_equals_numpy():
    x, weight = normal(2, 3, 8), normal(8)
    expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(rms_norm(jnp.array(x), None, 1e-6), expected, rtol=1e-5)
    np.testing.assert_allclose(rms_norm(jnp.array(x), jnp.array(weight), 1e-6), expected * weight, rtol=1e-5)


def test_rms_norm_golden():
    normed = rms_norm(jnp.array([[3.0, 4.0]]), None, 0.0)
    np.testing.assert_allclose(normed, [[3 / 12.5**0.5, 4 / 12.5**0.5]], rtol=1e-6)


def test_a_norm_adds_its_offset_to_the_weight():
    norm = RMSNorm(4, epsilon=1e-6, offset=1.0, start=0.25)
    np.testing.assert_allclose(norm.weight[...], -0.75)
    np.testing.assert_allclose(norm(jnp.ones((1, 4))), 0.25, rtol=1e-5)


def test_rms_norm_of_nothing_is_zero_with_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: rms_norm(x, None, 1e-6).sum())(jnp.zeros((2, 4)))
    assert value == 0 and np.isfinite(gradient).all()


def test_rms_norm_of_bfloat16_is_computed_in_float32():
    assert rms_norm(jnp.ones((1, 4), jnp.bfloat16), None, 1e-6).dtype == jnp.float32


@pytest.mark.parametrize(("fraction", "scale"), [(1.0, 1.0), (0.25, 1.0), (0.5, 8.0)])
def test_rotation_is_a_product_of_complex_numbers(fraction, scale):
    x, positions = normal(2, 5, 3, 16), RNG.integers(0, 100, (2, 5))
    rotated = rotate(jnp.array(x), jnp.array(positions), theta=1e4, fraction=fraction, scale=scale)
    numbers = x[..., :8] + 1j * x[..., 8:]
    frequency = np.array([1e4 ** (-2 * i / 16) / scale if i < 8 * fraction else 0 for i in range(8)])
    numbers = numbers * np.exp(1j * positions[:, :, None, None] * frequency)
    np.testing.assert_allclose(rotated, np.concatenate([numbers.real, numbers.imag], -1), atol=1e-4)


def test_rotated_products_depend_on_the_distance_alone():
    turn = partial(rotate, theta=1e4, fraction=1.0, scale=1.0)
    query, key = jnp.array(normal(1, 1, 1, 8)), jnp.array(normal(1, 1, 1, 8))
    products = [
        (turn(query, jnp.array([[start + 7]])) * turn(key, jnp.array([[start]]))).sum() for start in (0, 3, 100)
    ]
    np.testing.assert_allclose(products, products[0], rtol=1e-4)
    np.testing.assert_array_equal(turn(query, jnp.array([[0]])), query)


def test_gated_mlp_equals_numpy():
    mlp = GatedMLP(6, 10, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = normal(2, 3, 6)
    gate, up, down = (np.asarray(kernel[...], np.float64) for kernel in (mlp.gate, mlp.up, mlp.down))
    gated = x @ gate
    gelu = gated / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gated + 0.044715 * gated**3)))
    np.testing.assert_allclose(mlp(jnp.array(x)), (gelu * (x @ up)) @ down, atol=1e-5)


def product_and_gradients(function, x, kernel, cotangent):
    value, pull = jax.vjp(function, jnp.array(x), jnp.array(kernel))
    return value, *pull(jnp.array(cotangent))


def test_a_float32_product_is_the_plain_one_both_ways():
    x, kernel, cotangent = normal(2, 3, 8), normal(8, 5), normal(2, 3, 5)
    ours = product_and_gradients(lambda x, w: matmul(x, w, jnp.float32), x, kernel, cotangent)
    plain = product_and_gradients(jnp.dot, x, kernel, cotangent)
    for ours_, plain_ in zip(ours, plain, strict=True):
        np.testing.assert_allclose(ours_, plain_, rtol=1e-6, atol=1e-6)


def test_a_bfloat16_product_is_near_the_plain_one_both_ways():
    x, kernel, cotangent = normal(4, 3, 64), normal(64, 32), normal(4, 3, 32)
    half = product_and_gradients(lambda x, w: matmul(x, w, jnp.bfloat16), x, kernel, cotangent)
    plain = product_and_gradients(jnp.dot, x, kernel, cotangent)
    for half_, plain_ in zip(half, plain, strict=True):
        assert half_.dtype == jnp.float32
        error = np.linalg.norm(half_ - plain_) / np.linalg.norm(plain_)
        assert 1e-5 < error < 1e-2


def test_the_bfloat16_gradient_is_that_of_the_rounded_operands():
    x, kernel, cotangent = normal(4, 16), normal(16, 8), normal(4, 8)
    round_ = lambda y: jnp.asarray(y).astype(jnp.bfloat16).astype(jnp.float32)  # noqa: E731
    _, dx, dkernel = product_and_gradients(lambda x, w: matmul(x, w, jnp.bfloat16), x, kernel, cotangent)
    np.testing.assert_allclose(dx, round_(cotangent) @ round_(kernel).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dkernel, round_(x).T @ round_(cotangent), rtol=1e-4, atol=1e-5)


def test_jit_equals_eager():
    x, positions, kernel = jnp.array(normal(1, 4, 2, 8)), jnp.arange(4)[None], jnp.array(normal(8, 3))
    for function in (
        lambda x: rms_norm(x, None, 1e-6),
        lambda x: rotate(x, positions, theta=1e4, fraction=0.5, scale=2.0),
        lambda x: matmul(x, kernel, jnp.bfloat16),
    ):
        np.testing.assert_allclose(jax.jit(function)(x), function(x), rtol=1e-5, atol=1e-6)
