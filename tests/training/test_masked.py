from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.masked import masked_mean, masked_sum, masked_var, masked_whiten, upcast

GOLDEN = dict(np.load(Path(__file__).parents[1] / "fixtures" / "ppo_golden.npz"))
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool)
X = np.random.default_rng(0).normal(2, 3, MASK.shape)


def whiten(kept, shift_mean, ddof):
    scaled = (kept - kept.mean()) / np.sqrt(kept.var(ddof=ddof) + 1e-8)
    return scaled if shift_mean else scaled + kept.mean()


# Each function beside what it should give for the kept entries in a row.
FUNCTIONS = {
    "sum": (masked_sum, np.sum),
    "mean": (masked_mean, np.mean),
    "var": (masked_var, partial(np.var, ddof=1)),
    "var_biased": (partial(masked_var, unbiased=False), np.var),
    "whiten": (masked_whiten, partial(whiten, shift_mean=True, ddof=1)),
    "whiten_noshift": (partial(masked_whiten, shift_mean=False), partial(whiten, shift_mean=False, ddof=1)),
    "whiten_biased": (partial(masked_whiten, unbiased=False), partial(whiten, shift_mean=True, ddof=0)),
}
# Outside of jit every operation is compiled by itself, which would take most of the tests' time.
JITTED = {name: jax.jit(function) for name, (function, _) in FUNCTIONS.items()}
GRADIENTS = {
    name: jax.jit(jax.grad(lambda x, mask, function=function: jnp.sum(jnp.sin(function(x, mask)))))
    for name, (function, _) in FUNCTIONS.items()
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@each_function
def test_equals_numpy_on_the_kept_entries_and_is_0_elsewhere(name):
    result, expected = np.asarray(JITTED[name](X, MASK)), FUNCTIONS[name][1](X[MASK])
    np.testing.assert_allclose(result[MASK] if result.ndim else result, expected, rtol=1e-12)
    assert not result.ndim or not result[~MASK].any()


@pytest.mark.parametrize("function", [masked_sum, masked_mean])
def test_one_axis_at_a_time(function):
    by_row = np.asarray(jax.jit(partial(function, axis=-1))(X, MASK))
    reference = np.sum if function is masked_sum else np.mean
    np.testing.assert_allclose(by_row, [reference(X[0]), reference(X[1, [0, 1, 3]]), X[2, 1], 0], rtol=1e-12)


@each_function
def test_masked_equals_sliced(name):
    kept = X[MASK]
    masked, sliced = np.asarray(JITTED[name](X, MASK)), JITTED[name](kept, np.ones(kept.shape, bool))
    np.testing.assert_allclose(masked[MASK] if masked.ndim else masked, sliced, rtol=1e-12)


@each_function
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e300])
def test_what_is_dropped_reaches_neither_value_nor_gradient(name, garbage):
    clean, dirty = np.where(MASK, X, 0), np.where(MASK, X, garbage)
    np.testing.assert_array_equal(JITTED[name](dirty, MASK), JITTED[name](clean, MASK))
    gradient = np.asarray(GRADIENTS[name](dirty, MASK))
    np.testing.assert_array_equal(gradient, GRADIENTS[name](clean, MASK))
    assert np.isfinite(gradient).all() and not gradient[~MASK].any()


@each_function
def test_empty_mask_gives_0_and_a_gradient_of_0(name):
    assert not np.asarray(JITTED[name](X, np.zeros_like(MASK))).any()
    assert not np.asarray(GRADIENTS[name](X, np.zeros_like(MASK))).any()


@pytest.mark.parametrize("kept", [1, 4], ids=["single", "equal"])
def test_entries_without_spread_whiten_to_0_or_to_their_mean(kept):
    x, mask = np.full(MASK.shape, 5.0), np.arange(MASK.size).reshape(MASK.shape) < kept
    assert JITTED["var"](x, mask) == 0
    assert not np.asarray(JITTED["whiten"](x, mask)).any()
    np.testing.assert_array_equal(JITTED["whiten_noshift"](x, mask), np.where(mask, 5.0, 0))
    assert np.isfinite(GRADIENTS["whiten"](x, mask)).all()


@each_function
def test_jit_equals_eager(name):
    eager = FUNCTIONS[name][0](jnp.asarray(X), jnp.asarray(MASK))
    np.testing.assert_allclose(JITTED[name](X, MASK), eager, rtol=1e-12, atol=1e-15)


@each_function
@pytest.mark.parametrize(
    ("dtype", "wider"),
    [
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int32", "float32"),
        ("bool", "float32"),
    ],
)
def test_computes_in_float32_or_wider(name, dtype, wider):
    x = jax.ShapeDtypeStruct((2,), dtype)
    assert jax.eval_shape(upcast, x).dtype == wider
    assert jax.eval_shape(FUNCTIONS[name][0], x, jax.ShapeDtypeStruct((2,), "bool")).dtype == wider


def test_bfloat16_does_not_stop_counting():
    assert JITTED["sum"](np.ones(1000, jnp.bfloat16), np.ones(1000, bool)) == 1000


@pytest.mark.parametrize(
    ("key", "x", "name"),
    [
        ("whiten.mean", "in.whiten_x", "mean"),
        ("whiten.var_biased", "in.whiten_x", "var_biased"),
        ("whiten.var_unbiased", "in.whiten_x", "var"),
        ("whiten.shift.unbiased", "in.whiten_x", "whiten"),
        ("whiten.noshift.unbiased", "in.whiten_x", "whiten_noshift"),
        ("stat.returns_mean", "gae.g100_l95.returns", "mean"),
        ("stat.returns_var", "gae.g100_l95.returns", "var"),
        ("stat.values_mean", "in.values_old", "mean"),
        ("stat.values_var", "in.values_old", "var"),
        ("stat.vpred_mean", "in.vpred_new", "mean"),
    ],
)
def test_golden(key, x, name):
    mask = GOLDEN["in.mask"].astype(bool)
    expected = np.where(mask, GOLDEN[key], 0) if GOLDEN[key].ndim else GOLDEN[key]
    # What needs an unbiased variance was recorded with n / (n - 1) rounded to float32.
    tolerance = 1e-10 if name in ("mean", "var_biased") else 1e-7
    np.testing.assert_allclose(JITTED[name](GOLDEN[x], mask), expected, rtol=tolerance, atol=tolerance)
