import jax
import jax.numpy as jnp
import numpy as np
import pytest

from base_model.divergence import coarse_log_probs, divergence, likeliest, taught_loss

VOCABULARY = 11
RNG = np.random.default_rng(0)
TEACHER, STUDENT = (RNG.normal(0, 3, (2, 3, VOCABULARY)) for _ in range(2))
KEPT = (1, 4, VOCABULARY)


@jax.jit(static_argnames=("top_k", "temperature"))
def apart(teacher, student, *, top_k, temperature=1.0):
    ids = likeliest(teacher, top_k=top_k)
    coarse = (coarse_log_probs(logits, ids, temperature=temperature) for logits in (teacher, student))
    return divergence(*coarse)


@jax.jit(static_argnames="top_k")
def slope(teacher, student, *, top_k):
    """Value and gradient of the sum over places."""
    return jax.value_and_grad(lambda student: apart(teacher, student, top_k=top_k).sum())(student)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def probabilities(logits, temperature):
    exponentials = np.exp(logits / temperature)
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize(("top_k", "temperature"), [(1, 1.0), (4, 1.0), (4, 2.0), (VOCABULARY, 1.0)])
def test_equals_a_loop_over_tokens(top_k, temperature):
    found = np.asarray(apart(TEACHER, STUDENT, top_k=top_k, temperature=temperature))
    for place in np.ndindex(2, 3):
        p, q = (probabilities(logits[place], temperature) for logits in (TEACHER, STUDENT))
        order = np.argsort(-p)
        kept, rest = order[:top_k], order[top_k:]
        expected = sum(p[v] * np.log(p[v] / q[v]) for v in kept)
        if len(rest):
            expected += p[rest].sum() * np.log(p[rest].sum() / q[rest].sum())
        np.testing.assert_allclose(found[place], expected, rtol=1e-12)


def test_more_tokens_say_more_and_all_of_them_everything():
    by_k = np.stack([apart(TEACHER, STUDENT, top_k=top_k) for top_k in KEPT])
    assert (np.diff(by_k, axis=0) > 0).all() and (by_k > 0).all()
    p, q = probabilities(TEACHER, 1), probabilities(STUDENT, 1)
    np.testing.assert_allclose(by_k[-1], (p * np.log(p / q)).sum(-1), rtol=1e-12)


@pytest.mark.parametrize("top_k", [4, VOCABULARY])
def test_a_model_is_not_apart_from_itself(top_k):
    value, gradient = slope(TEACHER, TEACHER, top_k=top_k)
    np.testing.assert_allclose(value, 0, atol=1e-12)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_the_gradient_of_the_whole_is_the_difference_of_probabilities():
    gradient = slope(TEACHER, STUDENT, top_k=VOCABULARY)[1]
    np.testing.assert_allclose(gradient, probabilities(STUDENT, 1) - probabilities(TEACHER, 1), atol=1e-12)


@pytest.mark.parametrize("top_k", [4, VOCABULARY])
def test_gradients_are_finite_and_of_use_where_nothing_is_left_for_the_rest(top_k):
    sure = np.broadcast_to(np.where(np.arange(VOCABULARY) == 0, 800.0, 0.0), TEACHER.shape)
    unsure = np.zeros_like(sure)
    for teacher, student in ((sure, unsure), (unsure, sure), (sure, sure)):
        value, gradient = slope(teacher, student, top_k=top_k)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        assert (np.abs(gradient).max() > 0.1) == (teacher is not student)


def test_sixteen_bits_are_scaled_to_a_sum_of_one_again():
    exact = jnp.log(jnp.asarray(probabilities(TEACHER, 1)))
    rounded = exact.astype(jnp.float16)
    assert abs(np.exp(np.asarray(rounded, float)).sum(-1) - 1).max() > 1e-5
    found = jax.jit(divergence)(rounded, exact)
    assert (np.asarray(found) >= 0).all() and np.asarray(found).max() < 1e-5
    np.testing.assert_allclose(jax.jit(divergence)(exact + 0.25, exact), 0, atol=1e-12)


def test_the_mixture_and_the_square_of_the_temperature():
    mix = lambda apart, weight, temperature: taught_loss(  # noqa: E731
        jnp.array([apart]), jnp.array([3.0]), teacher_weight=weight, temperature=temperature
    )
    np.testing.assert_allclose(mix(0.5, 0.25, 2.0), 0.25 * 4 * 0.5 + 0.75 * 3.0)
    np.testing.assert_allclose(mix(0.5, 0.0, 2.0), 3.0)
    np.testing.assert_allclose(mix(0.5, 1.0, 1.0), 0.5)


def test_jit_equals_eager():
    logits = jnp.asarray(TEACHER)
    ids = likeliest(logits, top_k=4)
    np.testing.assert_array_equal(ids, np.argsort(-TEACHER)[..., :4])
    jitted = jax.jit(coarse_log_probs, static_argnames="temperature")(logits, ids, temperature=1.5)
    np.testing.assert_allclose(coarse_log_probs(logits, ids, temperature=1.5), jitted, rtol=1e-12)
