import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from ppo.logprobs import token_entropy, token_logprobs

LOGITS = np.random.default_rng(0).normal(0, 3, (2, 4, 9))
TOKENS = np.random.default_rng(1).integers(0, 9, (2, 4))

logprobs_jit = jax.jit(token_logprobs, static_argnames="temperature")
entropy_jit = jax.jit(token_entropy, static_argnames="temperature")
logprobs_gradient = jax.jit(jax.grad(lambda logits, tokens: jnp.sum(token_logprobs(logits, tokens))))
entropy_gradient = jax.jit(jax.grad(lambda logits: jnp.sum(token_entropy(logits))))


@pytest.mark.parametrize(
    ("key", "policy", "temperature", "agreement"),
    [
        ("lp.old", "old", 0.7, 0),
        ("lp.new", "new", 0.7, 0),
        ("lp.ref", "ref", 0.7, 0),
        ("lp.new_T1", "new", 1.0, 0),
        ("chk.verl_lp_new", "new", 0.7, 0),
        ("chk.openrlhf_lp_new", "new", 0.7, 0),
        ("chk.tunix_lp_new", "new", 0.7, 2e-6),
    ],
)
def test_golden_logprobs(golden, tolerance, key, policy, temperature, agreement):
    logprobs = logprobs_jit(golden(f"in.logits_{policy}"), golden("in.tokens"), temperature=temperature)
    np.testing.assert_allclose(logprobs, golden(key), rtol=max(tolerance, agreement), atol=max(tolerance, agreement))


@pytest.mark.parametrize(
    ("key", "agreement"), [("ent.new_token", 0), ("chk.verl_entropy", 0), ("chk.tunix_entropy", 2e-6)]
)
def test_golden_entropy(golden, tolerance, key, agreement):
    entropy = entropy_jit(golden("in.logits_new"), temperature=golden("in.temperature").item())
    np.testing.assert_allclose(entropy, golden(key), rtol=max(tolerance, agreement), atol=max(tolerance, agreement))


@pytest.mark.parametrize("key", ["ent.loss_token_mean", "stat.entropy_mean"])
def test_golden_mean_entropy(golden, tolerance, key):
    entropy = np.asarray(entropy_jit(golden("in.logits_new"), temperature=0.7))
    np.testing.assert_allclose(entropy[golden("in.mask")].mean(), golden(key), rtol=tolerance)


@pytest.mark.parametrize("run", ["k1", "k3"])
def test_replay_of_a_recorded_run(golden, tolerance, run):
    def read(name):
        return golden(f"trlstep.{run}.{name}")

    # TRL writes 1.0 on padding. The rollout's log-probs are float32 in the recording.
    rollout = np.where(read("padding_mask"), 1.0, logprobs_jit(read("logitss"), read("responses")))
    np.testing.assert_allclose(rollout, read("logprobs"), atol=max(tolerance, 1e-6))
    entropies = []
    for step, rows in enumerate(read("mb_micro_batch_inds")):
        logits = read("mb_logits")[step]
        logprobs = np.where(read("padding_mask")[rows], 1.0, logprobs_jit(logits, read("responses")[rows]))
        np.testing.assert_allclose(logprobs, read("mb_new_logprobs")[step], rtol=tolerance, atol=tolerance)
        # The recorded mean runs over padding too.
        entropies.append(np.mean(entropy_jit(logits)))
    np.testing.assert_allclose(entropies, read("mb_entropy_mean"), rtol=tolerance)
    logged = dict(zip(read("log_names"), read("log_values"), strict=True))
    np.testing.assert_allclose(np.mean(entropies), logged["policy/entropy_avg"], rtol=max(tolerance, 1e-6))


@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_equal_a_naive_reference_and_rlax(x64, temperature):
    probs = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum(-1, keepdims=True)
    expected = [[np.log(probs[b, t, TOKENS[b, t]]) for t in range(4)] for b in range(2)]
    logprobs = logprobs_jit(LOGITS, TOKENS, temperature=temperature)
    entropy = entropy_jit(LOGITS, temperature=temperature)
    np.testing.assert_allclose(logprobs, expected, rtol=1e-10)
    np.testing.assert_allclose(entropy, -(probs * np.log(probs)).sum(-1), rtol=1e-10)

    with pytest.warns(PendingDeprecationWarning):
        oracle = rlax.softmax(temperature)
    np.testing.assert_allclose(logprobs, jax.jit(oracle.logprob)(TOKENS, LOGITS), rtol=1e-10)
    np.testing.assert_allclose(entropy, jax.jit(oracle.entropy)(LOGITS), rtol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_are_finite(scale):
    logits = (scale * LOGITS).astype(np.float32)
    assert np.isfinite(logprobs_gradient(logits, TOKENS)).all()
    assert np.isfinite(entropy_gradient(logits)).all()


def test_forbidden_tokens_have_probability_0_and_leave_the_rest_alone(x64):
    logits, tokens = np.copy(LOGITS), np.minimum(TOKENS, 7)
    logits[..., -1] = -np.inf
    np.testing.assert_allclose(logprobs_jit(logits, tokens), logprobs_jit(LOGITS[..., :-1], tokens), rtol=1e-12)
    np.testing.assert_allclose(entropy_jit(logits), entropy_jit(LOGITS[..., :-1]), rtol=1e-12)
    assert np.isfinite(logprobs_gradient(logits, tokens)).all()
    assert np.isfinite(entropy_gradient(logits)).all()


def test_bfloat16_logits_are_scored_in_float32():
    logits = LOGITS.astype(jnp.bfloat16)
    logprobs = logprobs_jit(logits, TOKENS, temperature=0.7)
    assert logprobs.dtype == entropy_jit(logits).dtype == np.float32
    np.testing.assert_array_equal(logprobs, logprobs_jit(logits.astype(np.float32), TOKENS, temperature=0.7))


def test_each_token_is_scored_by_itself(x64):
    sliced = logprobs_jit(LOGITS[:, :2], TOKENS[:, :2]), entropy_jit(LOGITS[:, :2])
    np.testing.assert_allclose(logprobs_jit(LOGITS, TOKENS)[:, :2], sliced[0], rtol=1e-12)
    np.testing.assert_allclose(entropy_jit(LOGITS)[:, :2], sliced[1], rtol=1e-12)


def test_jit_equals_eager(x64):
    logits, tokens = jnp.asarray(LOGITS), jnp.asarray(TOKENS)
    np.testing.assert_allclose(logprobs_jit(LOGITS, TOKENS), token_logprobs(logits, tokens), rtol=1e-10)
    np.testing.assert_allclose(entropy_jit(LOGITS), token_entropy(logits), rtol=1e-10)


def test_entropy_lies_between_0_and_log_v(x64):
    np.testing.assert_allclose(entropy_jit(np.full((1, 1, 8), 3.0)), np.log(8), rtol=1e-12)
    assert entropy_jit(np.array([[[0.0, 0, 0, 0, 0, 0, 0, 1000]]])) == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        logprobs_jit(LOGITS, TOKENS, temperature=temperature)
    with pytest.raises(ValueError, match="temperature must be positive"):
        entropy_jit(LOGITS, temperature=temperature)
