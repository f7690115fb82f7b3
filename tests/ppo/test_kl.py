from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo.kl import KLControllerState, mean_sequence_kl, token_kl, update_kl_controller

RNG = np.random.default_rng(0)
NEW, REF = RNG.normal(-2, 1, (2, 4, 6))
MASK = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]], bool)
ESTIMATORS = {"k1": lambda d: d, "k2": lambda d: d**2 / 2, "k3": lambda d: np.exp(-d) - 1 + d}

kl_jit = jax.jit(token_kl, static_argnames="estimator")
mean_jit = jax.jit(mean_sequence_kl)
update_jit = jax.jit(update_kl_controller, static_argnames=("episodes", "target", "horizon"))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("source", "agreement"), [("kl.", 0), ("chk.openrlhf_", 2e-6), ("chk.tunix_", 2e-6)])
def test_golden_estimators(golden, tolerance, estimator, source, agreement):
    kl, expected = kl_jit(golden("lp.old"), golden("lp.ref"), estimator=estimator), golden(source + estimator)
    np.testing.assert_allclose(kl, expected, rtol=max(tolerance, agreement), atol=max(tolerance, agreement))


def test_golden_sequence_mean(golden, tolerance):
    kl = mean_jit(kl_jit(golden("lp.old"), golden("lp.ref")), golden("in.mask"))
    np.testing.assert_allclose(kl, golden("kl.k1_seqsum_mean"), rtol=tolerance)


@pytest.mark.parametrize("run", ["k1", "k3"])
def test_replay_of_a_recorded_run(golden, tolerance, run):
    def read(name):
        return golden(f"trlstep.{run}.{name}")

    mask = ~read("padding_mask")
    kl = np.asarray(kl_jit(read("logprobs"), read("ref_logprobs"), estimator=run))
    np.testing.assert_allclose(np.where(mask, kl, 0), read("kl"), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(np.where(mask, -0.05 * kl, 0), read("non_score_reward"), rtol=tolerance, atol=tolerance)
    logged = dict(zip(read("log_names"), read("log_values"), strict=True))
    np.testing.assert_allclose(mean_jit(kl, mask), logged["objective/kl"], rtol=tolerance)
    np.testing.assert_allclose(mean_jit(-0.05 * kl, mask), logged["objective/non_score_reward"], rtol=tolerance)


@pytest.mark.parametrize("episodes", [256, 2000])
def test_golden_controller(golden, tolerance, episodes):
    state = KLControllerState(coefficient=np.float64(0.15))
    coefficients = []
    for kl in golden("in.kl_series"):
        state = update_jit(state, kl, episodes=episodes, target=6.0, horizon=10_000.0)
        coefficients.append(state.coefficient)
    np.testing.assert_allclose(coefficients, golden(f"klctl.adaptive_n{episodes}"), rtol=tolerance)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators_equal_a_naive_reference(x64, estimator):
    kl = np.asarray(kl_jit(NEW, REF, estimator=estimator))
    for index, d in np.ndenumerate(NEW - REF):
        np.testing.assert_allclose(kl[index], ESTIMATORS[estimator](d), rtol=1e-10)


def test_what_the_estimators_estimate(x64):
    """In expectation over tokens of the policy, k1 and k3 are the divergence, and k2 has its gradient; k1 has none."""
    logits, ref = RNG.normal(size=(2, 1, 6))
    ref_logprobs = ref - np.log(np.exp(ref).sum())

    def divergence(logits):
        logprobs = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(logprobs) * (logprobs - ref_logprobs))

    def expectation(logits, estimator):
        logprobs = jax.nn.log_softmax(logits)
        sampled = jax.lax.stop_gradient(jnp.exp(logprobs))  # the tokens are data
        return jnp.sum(sampled * token_kl(logprobs, jnp.asarray(ref_logprobs), estimator=estimator))

    exact, exact_gradient = jax.jit(jax.value_and_grad(divergence))(logits)
    estimate, gradient = {}, {}
    for name in ESTIMATORS:
        estimate[name], gradient[name] = jax.jit(jax.value_and_grad(partial(expectation, estimator=name)))(logits)
    np.testing.assert_allclose([estimate["k1"], estimate["k3"]], [exact, exact], rtol=1e-12)
    np.testing.assert_allclose(gradient["k1"], 0, atol=1e-12)
    np.testing.assert_allclose(gradient["k2"], exact_gradient, rtol=1e-10)
    assert not np.allclose(gradient["k3"], exact_gradient, rtol=0.1)


def test_k3_keeps_its_digits_near_0_and_is_never_negative():
    d = np.full((4, 6), 1e-3, np.float32)
    np.testing.assert_allclose(kl_jit(d, np.zeros_like(d), estimator="k3"), 5e-7, rtol=1e-3)
    assert (kl_jit(NEW, REF, estimator="k3") >= 0).all()


def test_sequence_mean_counts_empty_rows_and_ignores_padding(x64):
    expected = np.mean([sum(NEW[b, t] for t in range(6) if MASK[b, t]) for b in range(4)])
    np.testing.assert_allclose(mean_jit(np.where(MASK, NEW, np.nan), MASK), expected, rtol=1e-12)
    np.testing.assert_allclose(mean_jit(NEW[:, :5], MASK[:, :5]), expected, rtol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_finite_and_jit_equals_eager(x64, estimator):
    def total(logprobs, ref_logprobs, mask):
        return mean_sequence_kl(token_kl(logprobs, ref_logprobs, estimator=estimator), mask)

    gradient = np.asarray(jax.jit(jax.grad(total))(NEW, REF, MASK))
    assert np.isfinite(gradient).all() and not gradient[~MASK].any()
    eager = total(jnp.asarray(NEW), jnp.asarray(REF), jnp.asarray(MASK))
    np.testing.assert_allclose(mean_jit(kl_jit(NEW, REF, estimator=estimator), MASK), eager, rtol=1e-12)


def test_bfloat16_logprobs_are_subtracted_in_float32():
    logprobs, ref_logprobs = NEW.astype(jnp.bfloat16), REF.astype(jnp.bfloat16)
    expected = logprobs.astype(np.float32) - ref_logprobs.astype(np.float32)
    np.testing.assert_array_equal(kl_jit(logprobs, ref_logprobs), expected)


@pytest.mark.parametrize(("kl", "factor"), [(600.0, 1.02), (6.6, 1.01), (6.0, 1.0), (5.4, 0.99), (-3.0, 0.98)])
def test_controller_moves_towards_its_target_within_a_fifth(x64, kl, factor):
    state = KLControllerState(coefficient=jnp.asarray(0.1))
    eager = update_kl_controller(state, jnp.asarray(kl), episodes=1000)
    np.testing.assert_allclose(eager.coefficient, 0.1 * factor, rtol=1e-12)
    np.testing.assert_allclose(update_jit(state, kl, episodes=1000).coefficient, eager.coefficient, rtol=1e-12)


def test_controller_without_horizon_is_a_constant():
    state = KLControllerState(coefficient=jnp.asarray(0.05), spent=jnp.asarray(2.0))
    after = update_kl_controller(state, jnp.asarray(100.0), episodes=10**9, horizon=None)
    assert after.coefficient is state.coefficient
    assert after.spent == update_jit(state, 100.0, episodes=1).spent == 0.75 * 2 + 0.25 * 100


def test_a_rollout_too_large_for_the_horizon_is_refused():
    with pytest.raises(ValueError, match="horizon must exceed"):
        update_jit(KLControllerState(0.1), 1.0, episodes=500, horizon=100.0)
